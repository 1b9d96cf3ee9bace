package admission_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/otherwebhooks"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
)

func TestAdmission(t *testing.T) {
	f := newFixture(t)
	t.Run("opt-in table", f.testOptIn)
	t.Run("other pods cost no call", f.testNoCalls)
	t.Run("match condition", f.testMatchCondition)
	t.Run("operator pod", f.testOperatorPod)
	t.Run("pod right after its service account", f.testRace)
	t.Run("limit range", f.testLimitRange)
	t.Run("quota", f.testQuota)
	t.Run("restricted pod security", f.testRestricted)
	t.Run("pods that other webhooks changed", f.testOtherWebhooks)
	t.Run("pods that other webhooks change in between", f.testChangedByOthers)
	t.Run("pods that platforms change", f.testPlatforms)
	t.Run("Guaranteed pod", f.testGuaranteed)
	t.Run("service account", f.testServiceAccount)
	t.Run("other programs", f.testModes)
	t.Run("excluded namespace", f.testExcluded)
	t.Run("paused", f.testPaused)
}

// Each row is a row of the opt-in table in the documentation.
func (f *fixture) testOptIn(t *testing.T) {
	const (
		web       = "web"
		detected  = "Prometheus"
		named     = "named Prometheus" // only the annotation shows that it is Prometheus
		never     = "never called"
		yes, no   = "true", "false"
		unset     = ""
		enabled   = policy.InjectionEnabled
		annotated = policy.InjectionAnnotated
	)
	namespaces := map[policy.Injection]string{"": "test-unlabelled", enabled: "test-enabled", annotated: "test-annotated"}
	accounts := map[string]string{unset: "prometheus-unset", yes: "prometheus-true", no: "prometheus-false"}
	for injection, namespace := range namespaces {
		f.namespace(t, namespace, injection, nil)
		for value, name := range accounts {
			var annotations map[string]string
			if value != unset {
				annotations = map[string]string{policy.AnnotationInject: value}
			}
			f.account(t, namespace, name, annotations)
		}
	}
	type row struct {
		injection    policy.Injection
		pod, account string
		kind         string
		want         string // the reason, or never
	}
	granted := string(policy.Granted)
	var rows []row
	for _, pod := range []string{unset, yes, no} {
		for _, account := range []string{unset, yes, no} {
			rows = append(rows, row{"", pod, account, detected, never})
		}
	}
	for _, label := range []policy.Injection{enabled, annotated} {
		rows = append(rows,
			row{label, no, unset, detected, string(policy.OptedOut)},
			row{label, no, yes, detected, string(policy.OptedOut)},
			row{label, unset, no, detected, string(policy.OptedOut)},
			row{label, yes, no, detected, string(policy.OptedOut)},
			row{label, yes, unset, detected, granted},
			row{label, yes, unset, named, granted},
			row{label, yes, unset, web, string(policy.NotPrometheus)},
			row{label, yes, yes, detected, granted},
			row{label, unset, yes, detected, granted},
			row{label, unset, yes, web, never},
			row{label, unset, unset, web, never},
		)
	}
	rows = append(rows,
		row{enabled, unset, unset, detected, granted},
		row{enabled, unset, unset, named, granted},
		row{annotated, unset, unset, detected, string(policy.NotAsked)},
		row{annotated, unset, unset, named, string(policy.NotAsked)},
	)
	for i, r := range rows {
		name := fmt.Sprintf("%02d label=%q pod=%q account=%q %s", i, r.injection, r.pod, r.account, r.kind)
		t.Run(name, func(t *testing.T) {
			pod := webPod()
			if r.kind != web {
				pod = chartPod(t)
			}
			pod.GenerateName, pod.Name = "", fmt.Sprintf("row-%02d", i)
			pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = accounts[r.account], ""
			pod.Annotations = map[string]string{}
			if r.kind == named {
				pod.Labels = nil
				pod.Annotations[policy.AnnotationContainer] = "metrics"
				disguise(pod)
			}
			if r.pod != unset {
				pod.Annotations[policy.AnnotationInject] = r.pod
			}
			namespace := namespaces[r.injection]
			created := f.pod(t, namespace, pod)
			if got, want := webhooktest.Injected(created), r.want == granted; got != want {
				t.Errorf("injected: got %v, want %v", got, want)
			}
			if got := f.reason(t, namespace, pod.Name); got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
		})
	}
}

// disguise returns a Prometheus without anything that shows that it is one.
func disguise(pod *corev1.Pod) {
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == "prometheus-server" {
			c.Name, c.Image, c.Args = "metrics", "registry.example.com/metrics:v1", []string{"--config.file=/etc/config/prometheus.yml"}
		}
	}
}

// The calls are those that the API server itself counts.
func (f *fixture) testNoCalls(t *testing.T) {
	webhooktest.Namespace(t, f.Cluster, "test-quiet")
	f.namespace(t, "test-elsewhere", "", nil)
	f.account(t, "test-elsewhere", "prometheus-server", nil)
	before := f.podCalls(t)
	for range 20 {
		f.pod(t, "test-elsewhere", chartPod(t))
		f.pod(t, "test-elsewhere", webPod())
		f.pod(t, "test-quiet", webPod())
		exporter := webPod()
		exporter.Spec.Containers[0].Image = "quay.io/prometheus/node-exporter:v1"
		exporter.Spec.Containers[0].Args = []string{"--web.listen-address=:9100", "--config.file=/etc/node-exporter.yml"}
		f.pod(t, "test-quiet", exporter)
		alertmanager := webPod()
		alertmanager.Spec.Containers[0].Image = "quay.io/prometheus/alertmanager:v0.28"
		alertmanager.Spec.Containers[0].Args = []string{"--config.file=/etc/alertmanager.yml", "--storage.path=/alertmanager"}
		f.pod(t, "test-quiet", alertmanager)
	}
	if got := f.podCalls(t) - before; got != 0 {
		t.Errorf("100 other pods: got %d calls, want 0", got)
	}
	// Check that the API server counts calls at all.
	f.account(t, "test-quiet", "prometheus-server", nil)
	f.pod(t, "test-quiet", chartPod(t))
	if got := f.podCalls(t) - before; got != 1 {
		t.Errorf("one Prometheus pod: got %d calls, want 1", got)
	}
}

func (f *fixture) testOperatorPod(t *testing.T) {
	webhooktest.Namespace(t, f.Cluster, "test-operator", "prometheus-k8s")
	pod := f.pod(t, "test-operator", operatorPod(t))
	if !webhooktest.Injected(pod) {
		t.Fatalf("not injected: %s", f.log)
	}
	if first := pod.Spec.InitContainers[0]; first.Name != sidecarconfig.ContainerName || first.Image != image {
		t.Errorf("first init container: got %s of %s", first.Name, first.Image)
	}
	// The API server's own plugin must not give the sidecar a token for the API.
	for _, m := range pod.Spec.InitContainers[0].VolumeMounts {
		if strings.HasPrefix(m.Name, "kube-api-access-") {
			t.Errorf("the sidecar mounts %s", m.Name)
		}
	}
}

// The service account is read live, so there is no outdated cache.
func (f *fixture) testRace(t *testing.T) {
	webhooktest.Namespace(t, f.Cluster, "test-race")
	const times = 200
	got := 0
	for i := range times {
		name := fmt.Sprintf("prometheus-%d", i)
		f.account(t, "test-race", name, nil)
		pod := chartPod(t)
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = name, ""
		if webhooktest.Injected(f.pod(t, "test-race", pod)) {
			got++
		}
	}
	if got != times {
		t.Errorf("injected: got %d of %d", got, times)
	}
}

func (f *fixture) testLimitRange(t *testing.T) {
	const namespace = "test-limits"
	webhooktest.Namespace(t, f.Cluster, namespace, "prometheus-server")
	minimum := resources("100m", "200Mi")
	_, err := f.Client().CoreV1().LimitRanges(namespace).Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "minimum"},
		Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Min: minimum}}},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	small := webPod()
	small.Spec.Containers[0].Resources.Requests = resources("10m", "32Mi")
	f.eventuallyForbidden(t, namespace, small, "minimum")

	pod := chartPod(t)
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Resources.Requests = minimum
	}
	f.wantInjected(t, namespace, pod)
}

func (f *fixture) testQuota(t *testing.T) {
	const namespace = "test-quota"
	webhooktest.Namespace(t, f.Cluster, namespace, "prometheus-server")
	_, err := f.Client().CoreV1().ResourceQuotas(namespace).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "limits"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("4")}},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	f.eventuallyForbidden(t, namespace, webPod(), "limits.cpu")

	pod := chartPod(t)
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Resources.Limits = resources("500m", "500Mi")
	}
	f.wantInjected(t, namespace, pod)
}

func (f *fixture) testRestricted(t *testing.T) {
	const namespace = "test-restricted"
	f.namespace(t, namespace, policy.InjectionEnabled, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	f.account(t, namespace, "prometheus-server", nil)
	f.eventuallyForbidden(t, namespace, webPod(), "restricted")

	pod := chartPod(t)
	pod.Spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	}
	f.wantInjected(t, namespace, pod)
}

// The API server accepts each pod that another webhook has changed, because it calls ampbridge's webhook
// again. Without that call it refuses some of the pods.
func (f *fixture) testOtherWebhooks(t *testing.T) {
	const namespace, outside = "test-others", "test-others-outside"
	webhooktest.Namespace(t, f.Cluster, namespace)
	f.namespace(t, outside, "", nil)
	f.account(t, namespace, "prometheus-k8s", nil)
	f.account(t, outside, "prometheus-k8s", nil)
	whole, err := f.tryPod(t, namespace, operatorPod(t), true)
	testkit.Must(t, err)
	whole.ObjectMeta = metav1.ObjectMeta{Name: whole.Name, Labels: whole.Labels, Annotations: whole.Annotations}
	refused := 0
	for _, change := range otherwebhooks.Changes() {
		if change.Want == otherwebhooks.Lost {
			continue
		}
		t.Run(change.Name, func(t *testing.T) {
			text, err := json.Marshal(whole)
			testkit.Must(t, err)
			var changed map[string]any
			testkit.Must(t, json.Unmarshal(text, &changed))
			change.Do(changed)
			text, err = json.Marshal(changed)
			testkit.Must(t, err)
			pod := &corev1.Pod{}
			testkit.Must(t, json.Unmarshal(text, pod))
			if _, err := f.tryPod(t, outside, pod.DeepCopy(), true); apierrors.IsInvalid(err) {
				refused++
			}
			got, err := f.tryPod(t, namespace, pod, true)
			if err != nil {
				t.Fatalf("the API server refuses it: %v", err)
			}
			if want := change.Want != otherwebhooks.TakenBack; webhooktest.Injected(got) != want {
				t.Errorf("injected: got %t, want %t", !want, want)
			}
			for _, c := range got.Spec.InitContainers {
				if c.Name == sidecarconfig.ContainerName &&
					(c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.StartupProbe == nil) {
					t.Error("Prometheus does not wait for the sidecar")
				}
			}
		})
	}
	if refused == 0 {
		t.Error("the API server accepts all of them without ampbridge's webhook, so the changes are harmless and prove nothing")
	}
}

func (f *fixture) testGuaranteed(t *testing.T) {
	const namespace = "test-guaranteed"
	webhooktest.Namespace(t, f.Cluster, namespace, "prometheus-server")
	pod := chartPod(t)
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			list[i].Resources.Requests, list[i].Resources.Limits = nil, resources("500m", "500Mi")
		}
	}
	got := f.pod(t, namespace, pod)
	if !webhooktest.Injected(got) || got.Status.QOSClass != corev1.PodQOSGuaranteed {
		t.Errorf("injected %t, QoS class %s", webhooktest.Injected(got), got.Status.QOSClass)
	}
}

func (f *fixture) testServiceAccount(t *testing.T) {
	webhooktest.Namespace(t, f.Cluster, "test-accounts")
	const role = "arn:aws:iam::111122223333:role/ampbridge/dev-eks/ampbridge.dev-eks.central"
	for name, want := range map[string]string{"prometheus-server": role, "web": ""} {
		if got := f.account(t, "test-accounts", name, nil).Annotations[policy.AnnotationRoleARN]; got != want {
			t.Errorf("%s: got role %q, want %q", name, got, want)
		}
	}
}

// The webhook's own namespace is excluded, even if it has the label.
func (f *fixture) testExcluded(t *testing.T) {
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, policy.LabelInjection, policy.InjectionEnabled)
	_, err := f.Client().CoreV1().Namespaces().Patch(
		t.Context(),
		home,
		"application/merge-patch+json",
		[]byte(patch),
		metav1.PatchOptions{},
	)
	testkit.Must(t, err)
	f.account(t, home, "prometheus-server", nil)
	before := f.podCalls(t)
	f.pod(t, home, chartPod(t))
	if got := f.podCalls(t) - before; got != 0 {
		t.Errorf("got %d calls, want 0", got)
	}
}

func (f *fixture) testPaused(t *testing.T) {
	webhooktest.Namespace(t, f.Cluster, "test-paused", "prometheus-server")
	isInjected := func() bool {
		pod, err := f.tryPod(t, "test-paused", chartPod(t), true)
		testkit.Must(t, err)
		return webhooktest.Injected(pod)
	}
	f.writePolicy(t, "paused: true\n")
	testkit.Eventually(t, "nothing is injected", func() bool { return !isInjected() })
	f.writePolicy(t, "")
	testkit.Eventually(t, "injection is back", isInjected)
}

// wantInjected creates the pod, which must be admitted with the sidecar.
func (f *fixture) wantInjected(t *testing.T, namespace string, pod *corev1.Pod) {
	t.Helper()
	if !webhooktest.Injected(f.pod(t, namespace, pod)) {
		t.Errorf("not injected: %s", f.lastLine())
	}
}

// eventuallyForbidden creates the pod as a dry run until the API server forbids it for the reason. Its
// plugins see new objects with a short delay.
func (f *fixture) eventuallyForbidden(t *testing.T, namespace string, pod *corev1.Pod, reason string) {
	t.Helper()
	testkit.Eventually(t, "a pod is forbidden because of "+reason, func() bool {
		_, err := f.tryPod(t, namespace, pod, true)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), reason)
	})
}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}
