package audit

import (
	"encoding/json"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

const (
	testImage = "registry.example.com/ampbridge:v1"
	podText   = `{
"metadata": {"name": "p-0", "namespace": "monitoring", "uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-02T03:04:05Z",
  "annotations": {"a": "b"},
	"ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "p", "uid": "o", "controller": true}]},
"spec": {"serviceAccountName": "prometheus",
	"containers": [{"name": "prometheus", "image": "prom/prometheus:v3", "args": ["--config.file=/etc/p/p.yml", "--config.auto-reload"],
		"resources": {"requests": {"memory": "1Gi"}},
		"volumeMounts": [{"name": "config", "mountPath": "/etc/p"}]}],
	"volumes": [{"name": "config", "configMap": {"name": "c"}}]},
"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}`
)

var policyText = policytest.Granting("prometheus", "monitoring")

func parse(t testing.TB, more string) *policy.Policy {
	t.Helper()
	return policytest.Parse(t, policyText+more)
}

// podWith is the pod with some members merged into it (RFC 7396).
func podWith(t testing.TB, pod, merge string) string {
	t.Helper()
	out, err := jsonpatch.MergePatch([]byte(pod), []byte(merge))
	testkit.Must(t, err)
	return string(out)
}

func decodePod(t testing.TB, text string) *Pod {
	t.Helper()
	pod, err := Decode([]byte(text))
	testkit.Must(t, err)
	return pod
}

// admitted is the pod as the webhook injects it under a policy.
func admitted(t testing.TB, pod string, p *policy.Policy) string {
	t.Helper()
	return admittedBy(t, pod, p, policy.Decision{Inject: true, Entitlement: policytest.Entitled(t, p, "monitoring", "prometheus")})
}

// admittedBy is [admitted] after a decision of the policy.
func admittedBy(t testing.TB, pod string, p *policy.Policy, d policy.Decision) string {
	t.Helper()
	operations, d := inject.Inject(&decodePod(t, pod).Pod, d, inject.Options{Policy: p, Image: testImage})
	if !d.Inject || len(operations) == 0 {
		t.Fatalf("not injected: %+v", d)
	}
	patch, err := json.Marshal(operations)
	testkit.Must(t, err)
	return string(patchtest.Apply(t, []byte(pod), patch))
}

// waiting is the status of a pod whose sidecar has a state.
func waiting(state string) string {
	return `{"status": {"phase": "Pending", "conditions": null, "initContainerStatuses": [{"name": "ampbridge-config", ` + state + `}]}}`
}

// turn adds the kubelet's word on whether volumes and network are there.
func turn(ready, status string) string {
	return strings.Replace(status, `"conditions": null`, `"conditions": [{"type": "PodReadyToStartContainers", "status": "`+ready+`"}]`, 1)
}

// before adds an init container before the sidecar.
func before(state, status string) string {
	return strings.Replace(status, `"initContainerStatuses": [`, `"initContainerStatuses": [{"name": "first", "state": `+state+`}, `, 1)
}

func TestAssess(t *testing.T) {
	now := parse(t, "")
	injected := admitted(t, podText, now)
	container := parse(t, "")
	container.Grants[0].Environment = policy.EnvironmentContainer
	withVariables := admitted(t, podText, container)
	signing := strings.Replace(podText, "prometheus:v3", "prometheus:v3.15.0", 1)
	pull := waiting(`"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off"}}`)
	w := breaker.Workload{Namespace: "monitoring", Kind: "StatefulSet", Name: "p"}
	open := breaker.State{}.With(
		breaker.Entry{
			Workload: w, Revision: breaker.Revision(now, policytest.Entitled(t, now, "monitoring", "prometheus"), testImage),
			Cause: "ImagePullBackOff",
		},
	)
	annotated := func(key, value string) string {
		return `{"metadata": {"annotations": {"` + key + `": "` + value + `"}}}`
	}

	for _, test := range []struct {
		name      string
		policy    string // more lines of it
		injection policy.Injection
		pod       string
		account   map[string]string
		limits    inject.Limits
		breaker   breaker.State
		image     string
		want      Kind
		reason    policy.Reason
		older     bool
	}{
		{name: "missed", pod: podText, want: Missed, reason: policy.Granted},
		{name: "healthy", pod: injected, want: Healthy, reason: inject.AlreadyInjected},
		{name: "outdated", policy: "session: {duration: 1h}", pod: injected, want: Outdated, reason: inject.AlreadyInjected},
		{name: "another grant changes nothing for it", policy: "audit: {repair: evict}", pod: injected, want: Healthy,
			reason: inject.AlreadyInjected},
		{name: "AWS variables, and no other identity", pod: withVariables, want: Healthy, reason: inject.AlreadyInjected},
		{name: "AWS variables beside an identity of its own", pod: withVariables,
			account: map[string]string{policy.AnnotationIRSA: "arn:aws:iam::111122223333:role/" +
				"own"}, want: Outdated, reason: inject.AlreadyInjected},
		{name: "AWS files that came later", pod: strings.Replace(admitted(t, signing, now), `"env":[`, `"env":[{"name":"AWS_PROFILE"},`, 1),
			want: Outdated, reason: inject.AlreadyInjected},
		{name: "a pod that signs", pod: admitted(t, signing, now), want: Healthy, reason: inject.AlreadyInjected},
		{name: "mark that cannot be read", pod: podWith(t, injected, annotated(inject.AnnotationInjected, "x")), want: Outdated,
			reason: inject.AlreadyInjected},

		{name: "no grant", pod: podWith(t, podText, `{"spec": {"serviceAccountName": "other"}}`), want: Skipped, reason: policy.NotGranted},
		{name: "configuration in the image", pod: strings.Replace(podText, `"/etc/p"`, `"/elsewhere"`, 1), want: Skipped,
			reason: inject.ConfigurationInImage},
		{name: "paused, not injected", policy: "paused: true", pod: podText, want: Skipped, reason: policy.Paused},
		{name: "paused, injected", policy: "paused: true", pod: injected, want: Healthy, reason: policy.Paused},
		{name: "injected, and the grant is gone", pod: podWith(t, injected, `{"spec": {"serviceAccountName": "other"}}`), want: Skipped,
			reason: policy.NotGranted},
		{name: "limit range", pod: podText, want: Skipped, reason: inject.LimitRangeConflict, limits: inject.Limits{Ranges: []corev1.LimitRange{{
			ObjectMeta: metav1.ObjectMeta{Name: "tight"},
			Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer,
				Max: corev1.ResourceList{"memory": resource.MustParse("1Mi")}}}},
		}}}},

		{name: "namespace without the label", injection: "off", pod: podText, want: Skipped, reason: policy.NotLabelled},
		{name: "pod opted out", pod: podWith(t, podText, annotated(policy.AnnotationInject, "false")), want: None},
		{name: "service account opted out", pod: podText, account: map[string]string{policy.AnnotationInject: "false"}, want: None},
		{name: "opted out while it hangs", pod: podWith(t, injected, pull), account: map[string]string{policy.AnnotationInject: "false"},
			want: None},
		{name: "not asked", injection: policy.InjectionAnnotated, pod: podText, want: None},
		{name: "asked", injection: policy.InjectionAnnotated, pod: podText, account: map[string]string{policy.AnnotationInject: "true"},
			want: Missed, reason: policy.Granted},
		{name: "no Prometheus", pod: strings.Replace(strings.Replace(podText, "prom/prometheus:v3", "nginx", 1), "--config.auto-reload", "-x",
			1), want: None},
		{name: "static pod", pod: podWith(t, podText, annotated(corev1.MirrorPodAnnotationKey, "x")), want: None},
		{name: "leaving", pod: podWith(t, podText, `{"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}`), want: None},
		{name: "ended", pod: podWith(t, podText, `{"status": {"phase": "Succeeded"}}`), want: None},

		{name: "hangs", pod: podWith(t, injected, pull), want: Hanging, reason: "ImagePullBackOff"},
		{name: "hangs on another image than today's", pod: podWith(t, injected, pull), image: "other:v2", want: Hanging,
			reason: "ImagePullBackOff", older: true},
		{name: "hangs on an older policy", policy: "session: {duration: 1h}", pod: podWith(t, injected, pull), want: Hanging,
			reason: "ImagePullBackOff", older: true},
		{name: "hangs while paused", policy: "paused: true", pod: podWith(t, injected, pull), want: Hanging, reason: "ImagePullBackOff"},
		{name: "somebody else's container of that name", pod: podWith(t, podText, pull), want: Missed, reason: policy.Granted},

		{name: "breaker open", pod: podText, breaker: open, want: Skipped, reason: breaker.CircuitOpen},
		{name: "breaker open, injected pod runs", pod: injected, breaker: open, want: Healthy, reason: inject.AlreadyInjected},
		{name: "breaker open for an older image", pod: podText, breaker: open, image: "other:v2", want: Missed, reason: policy.Granted},
	} {
		t.Run(test.name, func(t *testing.T) {
			q := Question{
				Policy: parse(t, test.policy), Image: testImage, Injection: policy.InjectionEnabled, Pod: decodePod(t, test.pod),
				ServiceAccount: test.account, Limits: test.limits, Breaker: test.breaker,
			}
			if test.injection != "" {
				q.Injection = test.injection
			}
			if test.image != "" {
				q.Image = test.image
			}
			f := Assess(q)
			if f.Kind != test.want || (test.reason != "" && f.Reason != test.reason) || f.Older != test.older {
				t.Errorf("got %+v, want %s, %s, older %v", f, test.want, test.reason, test.older)
			}
			if (f.Kind == Missed || f.Kind == Outdated || f.Kind == Skipped) && f.Text == "" {
				t.Error("the finding says nothing")
			}
		})
	}
}

func TestHangs(t *testing.T) {
	for _, test := range []struct{ name, status, want string }{
		{"volumes on their way", waiting(`"state": {"waiting": {"reason": "PodInitializing"}}`), ""},
		{"volumes on their way, by the kubelet's own word", turn("False", waiting(`"state": {"waiting": {"reason": "PodInitializing"}}`)), ""},
		{"image on its way", turn("True", waiting(`"state": {"waiting": {"reason": "PodInitializing"}}`)), "Pulling"},
		{"image on its way, after other init containers",
			turn("True", before(`{"terminated": {"exitCode": 0}}`, waiting(`"state": {"waiting": {"reason": "PodInitializing"}}`))), "Pulling"},
		{"another init container runs", turn("True", before(`{"running": {}}`, waiting(`"state": {"waiting": {"reason": `+
			`"PodInitializing"}}`))), ""},
		{"another init container failed", turn("True", before(`{"terminated": {"exitCode": 1}}`, waiting(`"state": {"waiting": `+
			`{"reason": "PodInitializing"}}`))), ""},
		{"another init container's image is on its way",
			turn("True", before(`{"waiting": {"reason": "PodInitializing"}}`, waiting(`"state": {"waiting": `+
				`{"reason": `+
				`"PodInitializing"}}`))), ""},
		{"pull fails", waiting(`"state": {"waiting": {"reason": "ErrImagePull"}}`), "ErrImagePull"},
		{"crash loop", waiting(`"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}`), "CrashLoopBackOff"},
		{"between two crashes", waiting(`"restartCount": 3, "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}`), "Restarting"},
		{"just crashed", waiting(`"restartCount": 3, "state": {"terminated": {"exitCode": 1}}`), "Ended"},
		{"not yet ready", waiting(`"started": false, "state": {"running": {}}`), "NotStarted"},
		{"started", waiting(`"started": true, "state": {"running": {}}`), ""},
		{"secret is missing", waiting(`"state": {"waiting": {"reason": "CreateContainerConfigError"}}`), "CreateContainerConfigError"},
		{"no status yet", `{"status": {"phase": "Pending"}}`, ""},
		{"another container", strings.Replace(waiting(`"state": {"waiting": {"reason": "ErrImagePull"}}`), "ampbridge-config", "other", 1), ""},
		{"Prometheus was started before", strings.Replace(waiting(`"state": {"waiting": {"reason": "CrashLoopBackOff"}}`), "Pending",
			"Running", 1), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			cause, _, hangs := decodePod(t, podWith(t, podText, test.status)).Hangs()
			if cause != test.want || hangs != (test.want != "") {
				t.Errorf("got %q, %v; want %q", cause, hangs, test.want)
			}
		})
	}
}

// A quota that the pod itself fills up has room for its successor.
func TestQuotaWithoutThePod(t *testing.T) {
	quota := corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Name: "q"}}
	quota.Status.Hard = corev1.ResourceList{"requests.memory": resource.MustParse("1100Mi"), "pods": resource.MustParse("9")}
	quota.Status.Used = corev1.ResourceList{"requests.memory": resource.MustParse("1Gi"), "pods": resource.MustParse("1")}
	pod := decodePod(t, podText)
	for _, test := range []struct {
		name   string
		quotas []corev1.ResourceQuota
		want   Kind
	}{
		{"with it", []corev1.ResourceQuota{quota}, Skipped},
		{"without it", without([]corev1.ResourceQuota{quota}, pod), Missed},
	} {
		f := Assess(
			Question{
				Policy:    parse(t, ""),
				Image:     testImage,
				Injection: policy.InjectionEnabled,
				Pod:       pod,
				Limits:    inject.Limits{Quotas: test.quotas},
			},
		)
		if f.Kind != test.want {
			t.Errorf("%s: got %+v, want %s", test.name, f, test.want)
		}
	}
	if used := quota.Status.Used["requests.memory"]; used.String() != "1Gi" {
		t.Errorf("the quota itself became %s", used.String())
	}
}
