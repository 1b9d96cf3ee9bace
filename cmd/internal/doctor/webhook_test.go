package doctor

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// An edited registration fails only if the webhook is no longer called for pods of the subjects.
func TestRegistration(t *testing.T) {
	type entry = *admissionv1.MutatingWebhook
	for _, c := range []struct {
		name   string
		edit   func(entry)
		status check.Status
		want   string
	}{
		{"the chart's", func(entry) {}, check.Pass, ""},
		{"every resource", func(w entry) { w.Rules[0].Resources = []string{"*/*"} }, check.Pass, ""},
		{"every group, version and operation", func(w entry) {
			w.Rules[0].APIGroups, w.Rules[0].APIVersions = []string{"*"}, []string{"*"}
			w.Rules[0].Operations = []admissionv1.OperationType{"*"}
		}, check.Pass, ""},
		{"an objectSelector that selects the pods", func(w entry) {
			w.ObjectSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "openpolicyagent.org/ignore", Operator: metav1.LabelSelectorOpDoesNotExist}}}
		}, check.Pass, ""},
		{"an objectSelector that does not", func(w entry) {
			w.ObjectSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"inject": "yes"}}
		}, check.Fail, "check its objectSelector"},
		{"another group", func(w entry) { w.Rules[0].APIGroups = []string{"apps"} }, check.Fail, "no rule for the creation of pods"},
		{"another version", func(w entry) { w.Rules[0].APIVersions = []string{"v2"} }, check.Fail, "no rule for the creation of pods"},
		{"another scope", func(w entry) { w.Rules[0].Scope = new(admissionv1.ClusterScope) }, check.Fail, "no rule for the creation of pods"},
		{"another path", func(w entry) { w.ClientConfig.Service.Path = new("/mutate") }, check.Fail,
			`"/mutate", which must end in /pods/enabled`},
		{"no path", func(w entry) { w.ClientConfig.Service.Path = nil }, check.Fail, "which must end in /pods/enabled"},
		{"a further condition", func(w entry) {
			w.MatchConditions = append(w.MatchConditions, admissionv1.MatchCondition{Name: "mine", Expression: "request.namespace != 'm'"})
		}, check.Warn, "mine of entry pods-enabled.webhook.ampbridge.io (request.namespace != 'm')"},
	} {
		t.Run(c.name, func(t *testing.T) {
			object, err := registration.New(registration.Options{ClientConfig: admissionv1.WebhookClientConfig{
				Service: &admissionv1.ServiceReference{Namespace: "ampbridge-system", Name: "ampbridge-webhook"}}})
			testkit.Must(t, err)
			c.edit(&object.Webhooks[0])
			f := registered(object, &subject{labels: map[string]string{policy.LabelInjection: "enabled"}}, "")
			if f.Status != c.status || !strings.Contains(f.Message, c.want) {
				t.Errorf("%s: %s", f.Status, f.Message)
			}
		})
	}
}

// If the registration does not select one namespace, only the checks of that namespace fail.
func TestRegistrationOfOneNamespace(t *testing.T) {
	object, err := registration.New(registration.Options{ClientConfig: admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:1")}})
	testkit.Must(t, err)
	subjectOf := func(namespace string) *subject {
		s := policy.Subject{Namespace: namespace, ServiceAccount: "prometheus"}
		return &subject{Subject: s, about: check.About{Subject: s.String()}, labels: map[string]string{policy.LabelInjection: "enabled",
			corev1.LabelMetadataName: namespace}}
	}
	for _, c := range []struct {
		name      string
		excluded  []string
		failed    int
		endpoints check.Status
	}{
		{"none", nil, 0, check.Pass},
		{"one", []string{"second"}, 1, check.Pass},
		{"both", []string{"first", "second"}, 1, check.Skip},
	} {
		edited := object.DeepCopy()
		for i := range edited.Webhooks {
			edited.Webhooks[i].NamespaceSelector.MatchExpressions = append(edited.Webhooks[i].NamespaceSelector.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn,
					Values: append([]string{"x"}, c.excluded...)})
		}
		x := runnerOn(t, map[string]any{"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/ampbridge": edited})
		x.subjects = []*subject{subjectOf("first"), subjectOf("second")}
		x.checkWebhook(t.Context())
		failed := 0
		report := x.checks.Report()
		for _, f := range report.Of(check.Registration) {
			if f.Status == check.Fail {
				failed++
				if c.failed == 1 && c.name == "one" && f.About.Subject != x.subjects[1].about.Subject {
					t.Errorf("%s: %s", f.About, f.Message)
				}
			}
		}
		if failed != c.failed || report.Status(check.Endpoints) != c.endpoints {
			t.Errorf("%s: %d failed, endpoints %s", c.name, failed, report.Status(check.Endpoints))
		}
	}
}

// Doctor checks only the entries that the subjects' namespaces use.
func TestEntriesOf(t *testing.T) {
	object, err := registration.New(registration.Options{ClientConfig: admissionv1.WebhookClientConfig{URL: new("https://example.com")}})
	testkit.Must(t, err)
	for label, want := range map[string]string{"enabled": "pods-enabled", "annotated": "pods-annotated",
		"": "pods-enabled", "on": "pods-enabled"} {
		x := &runner{subjects: []*subject{{labels: map[string]string{policy.LabelInjection: label}}}}
		if got := x.entriesOf(object); len(got) != 1 || !strings.HasPrefix(got[0].Name, want+".") {
			t.Errorf("label %q: %+v", label, got)
		}
	}
}

// The Service must have the port that the registration names.
func TestEndpointsNameThePort(t *testing.T) {
	x := runnerOn(t, map[string]any{"/api/v1/namespaces/s/services/w": corev1.Service{Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Port: 443}}}}, "/apis/discovery.k8s.io/v1/namespaces/s/endpointslices": map[string]any{"items": []any{}}})
	for port, want := range map[int32]string{0: "no pod is behind", 443: "no pod is behind", 9443: "has no port 9443"} {
		c := admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "s", Name: "w"}}
		if port > 0 {
			c.Service.Port = &port
		}
		if f := x.endpoints(t.Context(), c); !strings.Contains(f.Message, want) {
			t.Errorf("port %d: %s", port, f.Message)
		}
	}
}

// The certificate is in the Secret that the webhook's pods mount, or else in the one that the
// webhook writes.
func TestServingSecret(t *testing.T) {
	pod := corev1.Pod{Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "policy"},
		{Name: "tls", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "my-own-cert"}}}}}}
	c := admissionv1.WebhookClientConfig{Service: &admissionv1.ServiceReference{Namespace: "s", Name: "w"}}
	for want, pods := range map[string][]corev1.Pod{"my-own-cert": {pod}, "w-tls": {{}}} {
		x := runnerOn(t, map[string]any{"/api/v1/namespaces/s/pods": corev1.PodList{Items: pods}})
		if got := x.servingSecret(t.Context(), c); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// The finding names what another webhook removed from an injected pod, or changed in it.
func TestAltered(t *testing.T) {
	p := policyOf(t, "{namespaces: [m], serviceAccounts: [prometheus], destinations: [central]}")
	sidecar := func(pod *corev1.Pod) *corev1.Container {
		for i := range pod.Spec.InitContainers {
			if pod.Spec.InitContainers[i].Name == "ampbridge-config" {
				return &pod.Spec.InitContainers[i]
			}
		}
		return nil
	}
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"nothing", func(*corev1.Pod) {}, ""},
		{"another container", func(pod *corev1.Pod) {
			pod.Spec.InitContainers = append(pod.Spec.InitContainers, corev1.Container{Name: "istio-init"})
		}, ""},
		{"the sidecar", func(pod *corev1.Pod) { pod.Spec.InitContainers = nil }, "the container ampbridge-config is missing"},
		{"its restart policy", func(pod *corev1.Pod) { sidecar(pod).RestartPolicy = nil }, "no restartPolicy: Always"},
		{"its environment", func(pod *corev1.Pod) { sidecar(pod).Env = nil }, "lacks the variable AMPBRIDGE_SIDECAR_CONFIG"},
		{"its volumes", func(pod *corev1.Pod) { pod.Spec.Volumes = pod.Spec.Volumes[:1] }, "is missing"},
		{"the audience", func(pod *corev1.Pod) {
			for _, v := range pod.Spec.Volumes {
				if v.Projected != nil {
					v.Projected.Sources[0].ServiceAccountToken.Audience = "vault"
				}
			}
		}, `the audience of the volume ampbridge-token is "vault"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := samplePod(policy.Subject{Namespace: "m", ServiceAccount: "prometheus"}, "")
			pod.Name = "p-0"
			pod = injectedPod(t, p, pod)
			mark, ok := markOf(pod)
			if !ok {
				t.Fatal("no mark")
			}
			c.change(pod)
			if got := altered(pod, mark, p.Token); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("%q, want %q", got, c.want)
			}
			if c.want == "" {
				return
			}
			x := &runner{policy: p}
			s := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "prometheus"}, destinations: p.Destinations}
			f := x.injected(t.Context(), s, &runningPod{Pod: pod, mark: mark, config: sidecarConfigOf(pod)})
			if f.Status != check.Fail || !strings.Contains(f.Message, "another webhook changed it") {
				t.Errorf("a running pod: %s: %s", f.Status, f.Message)
			}
		})
	}
}
