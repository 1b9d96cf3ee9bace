package doctor

import (
	"strings"
	"testing"

	stdjson "encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Doctor compares the injection of a pod of the modes identity and relay with the policy.
func TestInjectedModes(t *testing.T) {
	for _, mode := range []policy.Mode{policy.ModeIdentity, policy.ModeRelay} {
		parse := func(cluster string, m policy.Mode) *policy.Policy {
			return policytest.Parse(t, `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: `+cluster+`}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"}
- {name: backup, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-4567cdef"}
grants: [{namespaces: [m], serviceAccounts: [otel], destinations: [central, backup], mode: `+string(m)+`}]
trust: {manage: none}
`)
		}
		p := parse("dev", mode)
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "m", Name: "otel-0", Annotations: map[string]string{
				policy.AnnotationContainer: "otel,other", policy.AnnotationDestination: "backup"}},
			Spec: corev1.PodSpec{ServiceAccountName: "otel", Containers: []corev1.Container{{Name: "otel"}, {Name: "other"}}},
		}
		injected := injectedPod(t, p, pod)

		for _, row := range []struct {
			policy *policy.Policy
			want   check.Status
		}{{p, check.Pass}, {parse("other", mode), check.Warn}, {parse("dev", policy.ModePrometheus), check.Warn}} {
			mark, ok := markOf(injected)
			if !ok || mark.Mode != mode {
				t.Fatalf("mark %+v", mark)
			}
			s := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "otel"}, destinations: row.policy.Destinations}
			x := &runner{policy: row.policy}
			found := x.injected(t.Context(), s, &runningPod{Pod: injected, mark: mark, config: sidecarConfigOf(injected)})
			if found.Status != row.want {
				t.Errorf("%s: %s: %s, want %s", mode, found.Status, found.Message, row.want)
			}
		}
	}
}

// A pod is not outdated if its injection differs from the policy only by the pod's own
// annotations or by the group of its workload.
func TestInjectedAsThePodAsks(t *testing.T) {
	const text = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"}
- {name: backup, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-4567cdef"}
grants: [{namespaces: [m], serviceAccounts: [prometheus], destinations: [central, backup]HA}]
trust: {manage: none}
`
	for name, c := range map[string]struct {
		ha          string
		annotations map[string]string
	}{
		"nothing":              {},
		"the relay":            {annotations: map[string]string{policy.AnnotationDelivery: "relay"}},
		"one destination":      {annotations: map[string]string{policy.AnnotationDestinations: "backup"}},
		"the relay and one":    {annotations: map[string]string{policy.AnnotationDelivery: "relay", policy.AnnotationDestinations: "central"}},
		"a group":              {ha: ", ha: pair"},
		"a group and a relay":  {ha: ", ha: pair", annotations: map[string]string{policy.AnnotationDelivery: "relay"}},
		"the sidecar's":        {annotations: map[string]string{policy.AnnotationEnvironment: "sidecar"}},
		"that it is injected":  {annotations: map[string]string{policy.AnnotationInject: "true"}},
		"its container's name": {annotations: map[string]string{policy.AnnotationContainer: "prometheus-server"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := policytest.Parse(t, strings.Replace(text, "HA", c.ha, 1))
			pod := samplePod(policy.Subject{Namespace: "m", ServiceAccount: "prometheus"}, p.Token.Source)
			pod.Namespace, pod.Name, pod.Annotations = "m", "prometheus-0", c.annotations
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "prometheus", Controller: new(true)}}
			injected := injectedPod(t, p, pod)
			mark, ok := markOf(injected)
			if !ok {
				t.Fatal("no mark")
			}
			s := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "prometheus"}, destinations: p.Destinations}
			x := &runner{policy: p}
			found := x.injected(t.Context(), s, &runningPod{Pod: injected, mark: mark, config: sidecarConfigOf(injected)})
			if found.Status != check.Pass {
				t.Errorf("%s: %s", found.Status, found.Message)
			}
		})
	}
}

// injectedPod returns the pod as the webhook injects it.
func injectedPod(t *testing.T, p *policy.Policy, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	view, err := convert(pod)
	testkit.Must(t, err)
	d := p.Decide(policy.Request{Namespace: pod.Namespace, Injection: policy.InjectionEnabled, ServiceAccount: pod.Spec.ServiceAccountName,
		Prometheus: true, Workload: inject.Workload(view),
		PodAnnotations: pod.Annotations})
	operations, d := inject.Inject(view, d, inject.Options{Policy: p, Image: "example.com/sidecar:v1"})
	if !d.Inject {
		t.Fatalf("%+v", d)
	}
	patch, err := inject.AppendPatch(nil, operations)
	testkit.Must(t, err)
	text, err := stdjson.Marshal(pod)
	testkit.Must(t, err)
	injected := &corev1.Pod{}
	testkit.DecodeJSON(t, patchtest.Apply(t, text, patch), injected)
	return injected
}
