package audit_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// offered is how many workloads of one tenant hang.
const offered = 5000

func TestTenants(t *testing.T) {
	f := newFixture(t)
	t.Run("a breaker that cannot be written", f.testUnwritable)
	t.Run("one tenant offers 5,000 entries", f.testOffered)
}

// One tenant's pods all hang, each of a workload of its own. Its namespace comes
// first, and it has one whose controller nobody could write down. The others'
// pods are released in the same round.
func (f *fixture) testOffered(t *testing.T) {
	const tenant, other, third = "test-a-tenant", "test-b-other", "test-z-other"
	for _, n := range []string{tenant, other, third} {
		f.namespace(t, n)
	}
	f.startWebhook(t, other)
	// What somebody wrote by hand takes nearly all the room there is.
	filler := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: breaker.ConfigMap},
		Data:       map[string]string{"filler": strings.Repeat("x", 1_040_000)},
	}
	_, err := f.Client().CoreV1().ConfigMaps(home).Update(t.Context(), filler, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		_, err = f.Client().CoreV1().ConfigMaps(home).Create(t.Context(), filler, metav1.CreateOptions{})
	}
	testkit.Must(t, err)
	begin := time.Now()
	testkit.Must(t, f.crowd(t, tenant))
	t.Logf("%d pods hang after %s", offered, time.Since(begin).Round(time.Second))
	pods := map[string][]corev1.Pod{}
	for _, n := range []string{other, third} {
		pods[n] = f.deploy(t, n, "prometheus", 1, nil)
		f.report(t, pods[n][0], cannotPull)
	}
	// After the round in which the grace is over there is none for an hour.
	r := f.audit(t, "", func(o *audit.Options) { o.Grace, o.Interval = time.Second, time.Hour })
	begin = time.Now()
	for n, before := range pods {
		testkit.Within(
			t,
			2*time.Minute,
			"the pod of "+n+" is released",
			func() bool { return replaced(before, f.pods(t, n, "prometheus")) },
		)
		t.Logf("%s: released after %s", n, time.Since(begin).Round(time.Second))
		if now := f.pods(t, n, "prometheus"); webhooktest.Injected(&now[0]) {
			t.Errorf("%s: the successor is injected", n)
		}
	}
	// All but the one that has a controller, and is released too.
	if n := r.value(t, findings, "stuck"); n < offered-1 {
		t.Errorf("%v pods are stuck, want %d or more", n, offered-1)
	}
	object, err := f.Client().CoreV1().ConfigMaps(home).Get(t.Context(), breaker.ConfigMap, metav1.GetOptions{})
	testkit.Must(t, err)
	bytes, ofTenant := 0, 0
	for k, v := range object.Data {
		bytes += len(k) + len(v)
		if strings.HasPrefix(k, tenant+".") {
			ofTenant++
		}
	}
	t.Logf(
		"%d entries, %d of the tenant, %d bytes; series %v",
		len(object.Data),
		ofTenant,
		bytes,
		r.value(t, "ampbridge_audit_breaker_open", ""),
	)
	if ofTenant > breaker.PerNamespace || ofTenant == 0 || bytes > breaker.MaxBytes {
		t.Errorf("%d entries of the tenant, %d bytes", ofTenant, bytes)
	}
	// For the tenant injection pauses too, whatever pod it is.
	for _, i := range []int{0, offered - 1} {
		pod := breaker.Of(tenant, fmt.Sprint("p-", i), "", "", nil)
		if _, open := breaker.State(object.Data).Open(pod, revision(t, tenant, image)); !open {
			t.Errorf("pod %d of the tenant would hang again", i)
		}
	}
	events, err := f.Client().CoreV1().Events(tenant).List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	if n := len(events.Items); n > 100 {
		t.Errorf("%d events about the tenant in a few rounds", n)
	}
}

// crowd makes the tenant's pods, and writes what the kubelet reports of them.
func (f *fixture) crowd(t *testing.T, namespace string) error {
	t.Helper()
	client := f.Client().CoreV1().Pods(namespace)
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(16)
	for i := range offered {
		group.Go(func() error {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("p-", i)}, Spec: template().Spec}
			if i == 1 {
				pod.OwnerReferences = []metav1.OwnerReference{{
					APIVersion: "example.com/v1", Kind: "A/b *", Name: "a\nb" + strings.Repeat("n", 10_000),
					UID: "1", Controller: new(true),
				}}
			}
			made, err := client.Create(ctx, pod, metav1.CreateOptions{})
			// On a busy machine the webhook may answer too late, and then the pod is
			// admitted as it was: such a pod would not hang.
			for err == nil && !webhooktest.Injected(made) {
				if err = client.Delete(ctx, made.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}); err == nil {
					made, err = client.Create(ctx, pod, metav1.CreateOptions{})
				}
			}
			for err == nil {
				cannotPull(&made.Status)
				if _, err = client.UpdateStatus(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
					return err
				}
				made, err = client.Get(ctx, made.Name, metav1.GetOptions{})
			}
			return err
		})
	}
	return group.Wait()
}

// A failed write holds up neither the release of pods whose entry is there, nor
// the repair of others. A pod without an entry stays: its successor would hang too.
func (f *fixture) testUnwritable(t *testing.T) {
	const namespace = "test-unwritable"
	f.namespace(t, namespace)
	missed := f.deploy(t, namespace, "missed", 1, nil)
	f.report(t, missed[0], ready)
	f.startWebhook(t, namespace)
	time.Sleep(time.Second) // see testRepairs
	known, fresh := f.deploy(t, namespace, "known", 1, nil), f.deploy(t, namespace, "fresh", 1, nil)
	f.report(t, known[0], cannotPull)
	f.report(t, fresh[0], cannotPull)
	maps := f.Client().CoreV1().ConfigMaps(home)
	_, err := store.Change(t.Context(), maps, func(s breaker.State) breaker.State {
		return s.With(
			breaker.Entry{
				Workload: breaker.Workload{Namespace: namespace, Kind: "Deployment", Name: "known"},
				Revision: revision(t, namespace, image),
				Cause:    "ImagePullBackOff",
				Since:    time.Now(),
			},
		)
	})
	testkit.Must(t, err)
	object, err := maps.Get(t.Context(), breaker.ConfigMap, metav1.GetOptions{})
	testkit.Must(t, err)
	object.Immutable = new(true)
	_, err = maps.Update(t.Context(), object, metav1.UpdateOptions{})
	testkit.Must(t, err)
	f.audit(t, evict, func(o *audit.Options) {
		quick(o)
		o.Grace = time.Second
	})
	testkit.Eventually(t, "the pod with an entry is released", func() bool { return replaced(known, f.pods(t, namespace, "known")) })
	if now := f.pods(t, namespace, "known"); webhooktest.Injected(&now[0]) {
		t.Error("its successor is injected")
	}
	testkit.Eventually(t, "the missed pod is repaired", func() bool { return replaced(missed, f.pods(t, namespace, "missed")) })
	if !has(f.pods(t, namespace, "fresh"), fresh[0]) {
		t.Error("a pod was evicted although its entry could not be written")
	}
	testkit.Must(t, maps.Delete(t.Context(), breaker.ConfigMap, metav1.DeleteOptions{}))
	testkit.Eventually(
		t,
		"it is released once the entry can be written",
		func() bool { return replaced(fresh, f.pods(t, namespace, "fresh")) },
	)
}
