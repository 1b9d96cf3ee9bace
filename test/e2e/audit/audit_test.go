package audit_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

const (
	evict     = "audit: {repair: evict}\n"
	evictions = "ampbridge_audit_evictions_total"
	findings  = "ampbridge_audit_pods"
	// excluded is labelled, and the webhook is not called for it.
	excluded = "test-excluded"
)

func TestAudit(t *testing.T) {
	f := newFixture(t)
	t.Run("tells and leaves alone", f.testTells)
	t.Run("repairs what slipped through", f.testRepairs)
	t.Run("respects a disruption budget", f.testBudget)
	t.Run("keeps its pace", f.testPace)
	t.Run("tells what sidecars say", f.testNews)
	t.Run("image that cannot be pulled", f.testStuck)
}

// Without `repair: evict` nothing is evicted; each finding is told once.
func (f *fixture) testTells(t *testing.T) {
	const namespace = "test-tells"
	f.namespace(t, namespace)
	testkit.Must(t, f.ServiceAccount(t.Context(), namespace, "stranger"))
	missed := f.deploy(t, namespace, "missed", 2, nil)
	f.namespace(t, excluded)
	f.deploy(t, excluded, "elsewhere", 1, nil)
	skipped := f.deploy(t, namespace, "skipped", 1, map[string]string{policy.AnnotationContainer: "none"})
	r := f.audit(t, "", quick)
	f.eventSays(t, missed[0], "InjectionMissed", "kubectl -n test-tells rollout restart deployment/missed")
	f.eventSays(t, skipped[0], "NoSuchContainer", `names "none"`)
	testkit.Eventually(t, "the metrics show it", func() bool {
		return r.value(t, findings, "missed") == 2 && r.value(t, findings, "skipped") == 1
	})
	time.Sleep(2 * time.Second) // some ten rounds
	for reason, pod := range map[string]corev1.Pod{"InjectionMissed": missed[0], "NoSuchContainer": skipped[0]} {
		if n := len(f.events(t, pod, reason)); n != 1 {
			t.Errorf("%d events %s, want 1", n, reason)
		}
		own := f.eventsOn(t, namespace, pod.UID, reason)
		if len(own) != 1 || strings.HasPrefix(own[0].Message, "pod ") {
			t.Errorf("on the pod itself: %v, want one event %s, which kubectl describe pod shows", own, reason)
		}
	}
	for _, pod := range missed {
		if !has(f.pods(t, namespace, "missed"), pod) {
			t.Errorf("%s is gone", pod.Name)
		}
	}
	if n := r.value(t, evictions, ""); n != 0 {
		t.Errorf("%v evictions were asked for", n)
	}
}

// Pods that were created while every replica of the webhook was down are
// replaced, one after another. Whoever opted out keeps what is there.
func (f *fixture) testRepairs(t *testing.T) {
	const namespace, left = "test-repairs", "test-repairs-left"
	f.namespace(t, namespace)
	f.namespace(t, left)
	slipped := f.deploy(t, namespace, "slipped", 2, nil)
	out := f.deploy(t, namespace, "out", 1, map[string]string{policy.AnnotationInject: "false"})
	leaving := f.deploy(t, left, "leaving", 1, nil)
	bare := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bare"}, Spec: template().Spec}
	bare, err := f.Client().CoreV1().Pods(namespace).Create(t.Context(), bare, metav1.CreateOptions{})
	testkit.Must(t, err)
	for _, pod := range append(slipped, out...) {
		if webhooktest.Injected(&pod) {
			t.Fatal("a pod was injected without a webhook")
		}
		f.report(t, pod, ready)
	}
	f.unlabel(t, left)

	f.startWebhook(t, namespace)
	// The API server dates pods to the second, and one of the second of an
	// eviction counts as a successor, which waits for minutes.
	time.Sleep(time.Second)
	r := f.audit(t, evict, quick)
	f.eventSays(t, slipped[0], "InjectionMissed", "The auditor evicts it")
	f.eventSays(t, slipped[0], "Evicted", "missed")
	testkit.Eventually(t, "the first is replaced", func() bool { return r.value(t, evictions, "evicted") == 1 })
	// Its sibling stays as long as the successor is not ready.
	time.Sleep(4 * time.Second)
	if n := r.value(t, evictions, ""); n != 1 {
		t.Errorf("%v evictions, want 1 at a time", n)
	}
	for _, pod := range f.pods(t, namespace, "slipped") {
		f.report(t, pod, ready)
	}
	testkit.Eventually(t, "the second is replaced", func() bool { return replaced(slipped, f.pods(t, namespace, "slipped")) })
	for _, pod := range f.pods(t, namespace, "slipped") {
		if !webhooktest.Injected(&pod) {
			t.Errorf("%s is not injected", pod.Name)
		}
		f.report(t, pod, ready)
	}
	testkit.Eventually(t, "all is well", func() bool {
		return r.value(t, findings, "missed") == 1 && r.value(t, findings, "healthy") == 2 // the bare pod stays missed
	})
	time.Sleep(3 * time.Second)
	if n := r.value(t, evictions, ""); n != 2 {
		t.Errorf("%v evictions, want 2", n)
	}
	if !has(f.pods(t, namespace, "out"), out[0]) || !has(f.pods(t, left, "leaving"), leaving[0]) {
		t.Error("a pod that opted out was evicted")
	}
	if p, err := f.Client().CoreV1().Pods(namespace).Get(t.Context(), "bare", metav1.GetOptions{}); err != nil || p.UID != bare.UID {
		t.Errorf("the pod without a controller: %v", err)
	}
	for _, pod := range append(out, leaving...) {
		if n := len(f.events(t, pod, "InjectionMissed")); n != 0 {
			t.Errorf("%d events about %s", n, pod.Name)
		}
	}
}

func (f *fixture) testBudget(t *testing.T) {
	const namespace = "test-budget"
	f.namespace(t, namespace)
	pods := f.deploy(t, namespace, "guarded", 1, nil)
	f.report(t, pods[0], ready)
	budgets := f.Client().PolicyV1().PodDisruptionBudgets(namespace)
	least := intstr.FromInt32(1)
	_, err := budgets.Create(t.Context(), &policyv1.PodDisruptionBudget{
		ObjectMeta: metav1.ObjectMeta{Name: "guard"},
		Spec: policyv1.PodDisruptionBudgetSpec{
			MinAvailable: &least,
			Selector:     &metav1.LabelSelector{MatchLabels: map[string]string{"deployment": "guarded"}},
		},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	testkit.Eventually(t, "the budget counts the pod", func() bool {
		b, err := budgets.Get(t.Context(), "guard", metav1.GetOptions{})
		testkit.Must(t, err)
		return b.Status.CurrentHealthy == 1 && b.Status.DisruptionsAllowed == 0
	})
	f.startWebhook(t, namespace)
	r := f.audit(t, evict, quick)
	testkit.Eventually(t, "the eviction is refused, and tried again", func() bool { return r.value(t, evictions, "refused") >= 2 })
	f.eventSays(t, pods[0], "EvictionRefused", "PodDisruptionBudget")
	if n := len(f.events(t, pods[0], "EvictionRefused")); n != 1 {
		t.Errorf("%d events EvictionRefused, want 1", n)
	}
	if now := f.pods(t, namespace, "guarded"); replaced(pods, now) || r.value(t, evictions, "evicted") != 0 {
		t.Fatal("the pod was evicted against its budget")
	}
	testkit.Must(t, budgets.Delete(t.Context(), "guard", metav1.DeleteOptions{}))
	testkit.Eventually(t, "the pod is replaced without the budget", func() bool { return replaced(pods, f.pods(t, namespace, "guarded")) })
}

// The burst comes at once, and then the cluster is left in peace.
func (f *fixture) testPace(t *testing.T) {
	const namespace, workloads = "test-pace", audit.EvictionBurst + 2
	f.namespace(t, namespace)
	for i := range workloads {
		f.deploy(t, namespace, string(rune('a'+i)), 1, nil)
	}
	f.startWebhook(t, namespace)
	r := f.audit(t, evict, func(o *audit.Options) {
		quick(o)
		o.EvictionInterval = time.Hour
	})
	testkit.Eventually(t, "the burst", func() bool { return r.value(t, evictions, "evicted") == audit.EvictionBurst })
	time.Sleep(3 * time.Second)
	if n := r.value(t, evictions, ""); n != audit.EvictionBurst {
		t.Errorf("%v evictions, want %d", n, audit.EvictionBurst)
	}
}

// The options are the defaults: the limit of two minutes is about those.
func (f *fixture) testStuck(t *testing.T) {
	const namespace, limit = "test-stuck", 2 * time.Minute
	f.namespace(t, namespace)
	f.startWebhook(t, namespace)
	pods := f.deploy(t, namespace, "stuck", 2, nil)
	hanging := f.deploy(t, namespace, "hanging", 1, nil)
	slow := f.deploy(t, namespace, "slow", 1, nil)
	for _, pod := range slices.Concat(pods, hanging, slow) {
		if !webhooktest.Injected(&pod) {
			t.Fatalf("%s is not injected", pod.Name)
		}
	}
	r := f.audit(t, "", func(*audit.Options) {})
	testkit.Eventually(t, "a first round", func() bool { return r.value(t, findings, "healthy") == 4 })
	begin := time.Now()
	for _, pod := range pods {
		f.report(t, pod, cannotPull)
	}
	f.report(t, hanging[0], pulling)
	f.report(t, slow[0], mounting)
	for name, before := range map[string][]corev1.Pod{"stuck": pods, "hanging": hanging} {
		testkit.Within(
			t,
			limit-time.Since(begin),
			"the pods of "+name+" are replaced",
			func() bool { return replaced(before, f.pods(t, namespace, name)) },
		)
		t.Logf("%s: replaced after %s", name, time.Since(begin).Round(time.Second))
		for _, pod := range f.pods(t, namespace, name) {
			if webhooktest.Injected(&pod) {
				t.Errorf("%s is injected, although the breaker is open", pod.Name)
			}
		}
	}
	f.eventSays(t, hanging[0], "CircuitOpen", "Pulling: the pod waits for nothing else, but the image "+image+" has not arrived yet")
	if !has(f.pods(t, namespace, "slow"), slow[0]) || len(f.events(t, slow[0], "SidecarHangs")) != 0 {
		t.Error("a pod that waits for its volumes was taken for one that hangs")
	}
	f.eventSays(t, pods[0], "SidecarHangs", "ImagePullBackOff")
	f.eventSays(t, pods[0], "CircuitOpen", "Back-off pulling image "+image)
	if n := r.value(t, "ampbridge_audit_breaker_open", "stuck"); n != 1 {
		t.Errorf("ampbridge_audit_breaker_open is %v, want 1", n)
	}
	state, err := store.Read(t.Context(), f.Client().CoreV1().ConfigMaps(home))
	testkit.Must(t, err)
	successor := f.pods(t, namespace, "stuck")[0]
	owner := metav1.GetControllerOf(&successor)
	workload := breaker.Of(namespace, successor.Name, owner.Kind, owner.Name, successor.Labels)
	entry, open := state.Open(workload, revision(t, namespace, image))
	if !open || entry.Cause != "ImagePullBackOff" || workload.String() != "Deployment/stuck" {
		t.Errorf("the breaker of %s: %+v, open %v", workload, entry, open)
	}
	if _, open := state.Open(workload, revision(t, namespace, image+"-fixed")); open {
		t.Error("the breaker stays open for another image")
	}
}
