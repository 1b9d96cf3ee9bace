package reconcile_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// stored is the state of the ConfigMap, as JSON: since when subjects are absent.
func (b *bridge) stored() string {
	b.Helper()
	m, err := b.cluster.Client().CoreV1().ConfigMaps("ampbridge").Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
	b.must(err)
	return m.Data["missed"]
}

func (b *bridge) label(value string) {
	b.Helper()
	_, err := b.cluster.Client().CoreV1().Namespaces().Patch(b.ctx, "monitoring", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"ampbridge.io/injection":"`+value+`"}}}`), metav1.PatchOptions{})
	b.must(err)
}

// Every run is a process of its own: what it knows of earlier ones is in the
// cluster.
func TestPrune(t *testing.T) {
	b := start(t)
	b.must(b.cluster.Namespace(b.ctx, "other", map[string]string{"ampbridge.io/injection": "enabled"}))
	noon := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) func(*reconcile.Options) {
		return func(o *reconcile.Options) { o.Now = func() time.Time { return noon.Add(d) } }
	}
	// run syncs at a time, and checks how many writes that took.
	run := func(b *bridge, d time.Duration, wantWrites int, says string) {
		b.Helper()
		output, _, writes, err := b.sync(policyText, at(d))
		if err != nil || writes != wantWrites || !strings.Contains(output, says) {
			b.Fatalf("%d writes (want %d), error %v, want output with %q:\n%s", writes, wantWrites, err, says, output)
		}
	}

	t.Run("after the grace period, whichever process counts it", func(t *testing.T) {
		b := b.aws(t)
		b.serviceAccount("monitoring", "prometheus-old")
		run(b, 0, 3, "in sync")
		testkit.Must(t, b.assume("monitoring", "prometheus-old"))
		b.deleteServiceAccount("prometheus-old")
		run(b, time.Minute, 0, "keeps its trust until 2026-06-01T13:01:00Z")
		run(b, time.Hour, 0, "keeps its trust until 2026-06-01T13:01:00Z")
		if got, want := b.stored(), `{"system:serviceaccount:monitoring:prometheus-old":"2026-06-01T12:01:00Z"}`; got != want {
			t.Errorf("remembered %s, want %s", got, want)
		}

		// Helm made it again in time: another deletion starts again.
		b.serviceAccount("monitoring", "prometheus-old")
		run(b, 65*time.Minute, 0, "nothing to change")
		if got := b.stored(); got != "{}" {
			t.Errorf("remembered %s, though it is back", got)
		}
		pod, err := b.cluster.Client().CoreV1().Pods("monitoring").Create(b.ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "prometheus-0"},
			Spec: corev1.PodSpec{
				ServiceAccountName: "prometheus-old",
				Containers:         []corev1.Container{{Name: "prometheus", Image: "prometheus"}},
			},
		}, metav1.CreateOptions{})
		b.must(err)
		b.deleteServiceAccount("prometheus-old")
		run(b, 70*time.Minute, 0, "keeps its trust until 2026-06-01T14:10:00Z")
		run(b, 2*time.Hour, 0, "keeps its trust")

		run(b, 3*time.Hour, 0, "a pod of it runs: prometheus-0")
		pod.Status.Phase = corev1.PodFailed
		_, err = b.cluster.Client().CoreV1().Pods("monitoring").UpdateStatus(b.ctx, pod, metav1.UpdateOptions{})
		b.must(err)
		dry, _, _, err := b.sync(policyText, func(o *reconcile.Options) { at(3 * time.Hour)(o); o.DryRun = true })
		if err != nil || !strings.Contains(dry, "# 1 subject not seen for longer than trust.pruneAfter") {
			t.Errorf("dry run: error %v, output:\n%s", err, dry)
		}
		run(b, 3*time.Hour, 1, "- subject: system:serviceaccount:monitoring:prometheus-old")
		run(b, 3*time.Hour, 0, "nothing to change")
		if got := b.stored(); got != "{}" {
			t.Errorf("remembered %s, though it is pruned", got)
		}
		b.serviceAccount("monitoring", "prometheus-old")
		if b.assume("monitoring", "prometheus-old") == nil {
			t.Error("a pruned service account still assumes the role")
		}
		b.must(
			b.cluster.Client().CoreV1().Pods("monitoring").Delete(
				b.ctx,
				"prometheus-0",
				metav1.DeleteOptions{GracePeriodSeconds: new(int64)},
			),
		)
	})

	t.Run("a namespace that loses its label, and more than half with it", func(t *testing.T) {
		b := b.aws(t)
		run(b, 0, 3, "in sync") // prometheus and prometheus-old
		b.label("off")
		run(b, 0, 0, "keeps its trust")
		output, _, writes, err := b.sync(policyText, at(time.Hour))
		if err == nil || writes != 0 || !strings.Contains(output, "2 of 2 trusted subjects are not seen any more") ||
			!strings.Contains(output, "--allow-shrink") {
			t.Errorf("%d writes, error %v, output:\n%s", writes, err, output)
		}
		output, _, writes, err = b.sync(policyText, func(o *reconcile.Options) { at(time.Hour)(o); o.AllowShrink = true })
		if err != nil || writes != 1 || !strings.Contains(output, "no subject is left, so the role is closed") {
			t.Errorf("allowed: %d writes, error %v, output:\n%s", writes, err, output)
		}
		b.label("enabled")
	})

	t.Run("a state that cannot be read, or is another cluster's", func(t *testing.T) {
		b := b.aws(t)
		run(b, 0, 3, "in sync")
		b.deleteServiceAccount("prometheus-old")
		run(b, 0, 0, "keeps its trust")
		output, _, writes, err := b.sync(policyText, func(o *reconcile.Options) { at(2 * time.Hour)(o); o.Namespace = "other" })
		if err != nil || writes != 0 ||
			!strings.Contains(output, "note: ConfigMap other/ampbridge-sync: cannot be read, so no subject is pruned: ") {
			t.Errorf("%d writes, error %v, output:\n%s", writes, err, output)
		}
		maps := b.cluster.Client().CoreV1().ConfigMaps("ampbridge")
		for _, text := range []string{"nonsense", `{"system:serviceaccount:monitoring:*":"2026-06-01T12:00:00Z"}`} {
			m, err := maps.Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
			b.must(err)
			was := m.DeepCopy()
			m.Data["missed"] = text
			m, err = maps.Update(b.ctx, m, metav1.UpdateOptions{})
			b.must(err)
			run(b, 2*time.Hour, 0, "so no subject is pruned: missed: ")
			was.ResourceVersion = m.ResourceVersion
			_, err = maps.Update(b.ctx, was, metav1.UpdateOptions{})
			b.must(err)
		}
		m, err := maps.Get(b.ctx, "ampbridge-sync", metav1.GetOptions{})
		b.must(err)
		m.Data["owner"] = "0123"
		_, err = maps.Update(b.ctx, m, metav1.UpdateOptions{})
		b.must(err)
		run(b, 2*time.Hour, 0, "keeps its trust until 2026-06-01T15:00:00Z")
		run(b, 3*time.Hour, 1, "- subject: system:serviceaccount:monitoring:prometheus-old")
	})
}
