package admission_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

func TestAdmission(t *testing.T) {
	w := newWorld(t)
	t.Run("opt-in table", w.testOptIn)
	t.Run("other pods cost no call", w.testNoCalls)
	t.Run("match condition", w.testMatchCondition)
	t.Run("operator pod", w.testOperatorPod)
	t.Run("pod right after its service account", w.testRace)
	t.Run("limit range", w.testLimitRange)
	t.Run("quota", w.testQuota)
	t.Run("restricted pod security", w.testRestricted)
	t.Run("service account", w.testServiceAccount)
	t.Run("excluded namespace", w.testExcluded)
	t.Run("paused", w.testPaused)
}

// Every row of the opt-in table of the documentation.
func (w *world) testOptIn(t *testing.T) {
	const (
		web       = "web"
		detected  = "Prometheus"
		named     = "named Prometheus" // nothing but the annotation says so
		never     = "never called"
		yes, no   = "true", "false"
		unset     = ""
		enabled   = policy.InjectionEnabled
		annotated = policy.InjectionAnnotated
	)
	namespaces := map[policy.Injection]string{"": "test-unlabelled", enabled: "test-enabled", annotated: "test-annotated"}
	accounts := map[string]string{unset: "prometheus-unset", yes: "prometheus-true", no: "prometheus-false"}
	for injection, namespace := range namespaces {
		w.namespace(t, namespace, injection, nil)
		for value, name := range accounts {
			var annotations map[string]string
			if value != unset {
				annotations = map[string]string{policy.AnnotationInject: value}
			}
			w.account(t, namespace, name, annotations)
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
			created := w.pod(t, namespace, pod)
			if got, want := injected(created), r.want == granted; got != want {
				t.Errorf("injected: got %v, want %v", got, want)
			}
			if got := w.reason(t, namespace, pod.Name); got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
		})
	}
}

// disguise makes a Prometheus that nothing shows to be one.
func disguise(pod *corev1.Pod) {
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; c.Name == "prometheus-server" {
			c.Name, c.Image, c.Args = "metrics", "registry.example.com/metrics:v1", []string{"--config.file=/etc/config/prometheus.yml"}
		}
	}
}

// The API server itself counts the calls.
func (w *world) testNoCalls(t *testing.T) {
	w.namespace(t, "test-quiet", policy.InjectionEnabled, nil)
	w.namespace(t, "test-elsewhere", "", nil)
	w.account(t, "test-elsewhere", "prometheus-server", nil)
	before := w.podCalls(t)
	for range 20 {
		w.pod(t, "test-elsewhere", chartPod(t))
		w.pod(t, "test-elsewhere", webPod())
		w.pod(t, "test-quiet", webPod())
		exporter := webPod()
		exporter.Spec.Containers[0].Image = "quay.io/prometheus/node-exporter:v1"
		exporter.Spec.Containers[0].Args = []string{"--web.listen-address=:9100", "--config.file=/etc/node-exporter.yml"}
		w.pod(t, "test-quiet", exporter)
		alertmanager := webPod()
		alertmanager.Spec.Containers[0].Image = "quay.io/prometheus/alertmanager:v0.28"
		alertmanager.Spec.Containers[0].Args = []string{"--config.file=/etc/alertmanager.yml", "--storage.path=/alertmanager"}
		w.pod(t, "test-quiet", alertmanager)
	}
	if got := w.podCalls(t) - before; got != 0 {
		t.Errorf("100 other pods: got %d calls, want 0", got)
	}
	// The count does count.
	w.account(t, "test-quiet", "prometheus-server", nil)
	w.pod(t, "test-quiet", chartPod(t))
	if got := w.podCalls(t) - before; got != 1 {
		t.Errorf("one Prometheus pod: got %d calls, want 1", got)
	}
}

func (w *world) testOperatorPod(t *testing.T) {
	w.namespace(t, "test-operator", policy.InjectionEnabled, nil)
	w.account(t, "test-operator", "prometheus-k8s", nil)
	pod := w.pod(t, "test-operator", operatorPod(t))
	if !injected(pod) {
		t.Fatalf("not injected: %s", w.log)
	}
	if first := pod.Spec.InitContainers[0]; first.Name != inject.ContainerSidecar || first.Image != image {
		t.Errorf("first init container: got %s of %s", first.Name, first.Image)
	}
	// The API server's own plugin gave the sidecar no token for its API.
	for _, m := range pod.Spec.InitContainers[0].VolumeMounts {
		if strings.HasPrefix(m.Name, "kube-api-access-") {
			t.Errorf("the sidecar mounts %s", m.Name)
		}
	}
}

// The service account is read live: there is no cache to be behind.
func (w *world) testRace(t *testing.T) {
	w.namespace(t, "test-race", policy.InjectionEnabled, nil)
	const times = 200
	got := 0
	for i := range times {
		name := fmt.Sprintf("prometheus-%d", i)
		w.account(t, "test-race", name, nil)
		pod := chartPod(t)
		pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = name, ""
		if injected(w.pod(t, "test-race", pod)) {
			got++
		}
	}
	if got != times {
		t.Errorf("injected: got %d of %d", got, times)
	}
}

func (w *world) testLimitRange(t *testing.T) {
	const namespace = "test-limits"
	w.namespace(t, namespace, policy.InjectionEnabled, nil)
	w.account(t, namespace, "prometheus-server", nil)
	minimum := resources("100m", "200Mi")
	_, err := w.Client().CoreV1().LimitRanges(namespace).Create(t.Context(), &corev1.LimitRange{
		ObjectMeta: metav1.ObjectMeta{Name: "minimum"},
		Spec:       corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{Type: corev1.LimitTypeContainer, Min: minimum}}},
	}, metav1.CreateOptions{})
	must(t, err)
	small := webPod()
	small.Spec.Containers[0].Resources.Requests = resources("10m", "32Mi")
	w.eventuallyForbidden(t, namespace, small, "minimum")

	pod := chartPod(t)
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Resources.Requests = minimum
	}
	w.wantInjected(t, namespace, pod)
}

func (w *world) testQuota(t *testing.T) {
	const namespace = "test-quota"
	w.namespace(t, namespace, policy.InjectionEnabled, nil)
	w.account(t, namespace, "prometheus-server", nil)
	_, err := w.Client().CoreV1().ResourceQuotas(namespace).Create(t.Context(), &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "limits"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourceLimitsCPU: resource.MustParse("4")}},
	}, metav1.CreateOptions{})
	must(t, err)
	w.eventuallyForbidden(t, namespace, webPod(), "limits.cpu")

	pod := chartPod(t)
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].Resources.Limits = resources("500m", "500Mi")
	}
	w.wantInjected(t, namespace, pod)
}

func (w *world) testRestricted(t *testing.T) {
	const namespace = "test-restricted"
	w.namespace(t, namespace, policy.InjectionEnabled, map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	w.account(t, namespace, "prometheus-server", nil)
	w.eventuallyForbidden(t, namespace, webPod(), "restricted")

	pod := chartPod(t)
	pod.Spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	for i := range pod.Spec.Containers {
		pod.Spec.Containers[i].SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}
	}
	w.wantInjected(t, namespace, pod)
}

func (w *world) testServiceAccount(t *testing.T) {
	w.namespace(t, "test-accounts", policy.InjectionEnabled, nil)
	const role = "arn:aws:iam::111122223333:role/ampbridge/dev-eks/ampbridge.dev-eks.central"
	for name, want := range map[string]string{"prometheus-server": role, "web": ""} {
		if got := w.account(t, "test-accounts", name, nil).Annotations[policy.AnnotationRoleARN]; got != want {
			t.Errorf("%s: got role %q, want %q", name, got, want)
		}
	}
}

// The webhook's own namespace stays out of it, whoever labels it.
func (w *world) testExcluded(t *testing.T) {
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, policy.LabelInjection, policy.InjectionEnabled)
	_, err := w.Client().CoreV1().Namespaces().Patch(t.Context(), home, "application/merge-patch+json", []byte(patch), metav1.PatchOptions{})
	must(t, err)
	w.account(t, home, "prometheus-server", nil)
	before := w.podCalls(t)
	w.pod(t, home, chartPod(t))
	if got := w.podCalls(t) - before; got != 0 {
		t.Errorf("got %d calls, want 0", got)
	}
}

func (w *world) testPaused(t *testing.T) {
	w.namespace(t, "test-paused", policy.InjectionEnabled, nil)
	w.account(t, "test-paused", "prometheus-server", nil)
	isInjected := func() bool {
		pod, err := w.tryPod(t, "test-paused", chartPod(t), true)
		must(t, err)
		return injected(pod)
	}
	w.writePolicy(t, "paused: true\n")
	eventually(t, "nothing is injected", func() bool { return !isInjected() })
	w.writePolicy(t, "")
	eventually(t, "injection is back", isInjected)
}

// wantInjected creates the pod, which is to be admitted with the sidecar.
func (w *world) wantInjected(t *testing.T, namespace string, pod *corev1.Pod) {
	t.Helper()
	if !injected(w.pod(t, namespace, pod)) {
		t.Errorf("not injected: %s", w.lastLine())
	}
}

// eventuallyForbidden creates the pod, dry, until the API server forbids it for
// the reason: its plugins see new objects a little later.
func (w *world) eventuallyForbidden(t *testing.T, namespace string, pod *corev1.Pod, reason string) {
	t.Helper()
	eventually(t, "a pod is forbidden because of "+reason, func() bool {
		_, err := w.tryPod(t, namespace, pod, true)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), reason)
	})
}

func resources(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}
