// Package renewal_test renews sessions under load. Prometheus loads new credentials with the reload that its
// pod already has, and is not affected.
package renewal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
)

func TestMain(m *testing.M) { kubelet.Main(m) }

// TestTenRenewals uses sessions of a minute that are renewed after a third of that time, while Prometheus
// sends hundreds of samples a second. Every write is signed with a session that is valid at that moment (the
// double checks that), no sample fails, and the queue is never rebuilt.
func TestTenRenewals(t *testing.T) {
	ctx := t.Context()
	e := env.Start(t, env.Options{})
	e.Cloud.SetSessionLife(time.Minute)
	if out, err := e.Sync(ctx); err != nil {
		t.Fatal(out, err)
	}
	p := e.StartPrometheus(t, env.Chart{Name: "renewal", Config: strings.ReplaceAll(env.SelfScrape, "1s", "500ms")})

	const queue = `{remote_name="ampbridge-central"`
	var sent float64
	keys := map[string]bool{}
	deadline := time.Now().Add(8 * time.Minute)
	for len(keys) <= 10 {
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions in 8 minutes, want more than 10", len(keys))
		}
		time.Sleep(time.Second)
		for _, w := range e.Cloud.Writes(e.Workspace.ID) {
			keys[w.AccessKeyID] = true
		}
		// A rebuilt queue counts from zero.
		now, ok := env.Metric(ctx, p.Object, "prometheus_remote_storage_samples_total"+queue)
		if ok && now < sent {
			t.Fatalf("the queue was rebuilt: it had sent %v samples, and now %v", sent, now)
		}
		sent = max(sent, now)
	}

	var samples int
	for _, w := range e.Cloud.Writes(e.Workspace.ID) {
		if !w.Stored() {
			t.Errorf("a write at %s was refused: %d %s", w.Time.Format(time.TimeOnly), w.Status, w.Reason)
		}
		samples += w.Samples
	}
	for _, metric := range []string{"failed", "dropped", "retried"} {
		// Prometheus has a series of dropped samples for each reason, and none if nothing was dropped.
		if v, ok := env.Metric(
			ctx,
			p.Object,
			"prometheus_remote_storage_samples_"+metric+"_total"+queue,
		); v != 0 ||
			!ok && metric != "dropped" {
			t.Errorf("samples %s: %v", metric, v)
		}
	}
	server := p.Server()
	if starts := strings.Count(server.Logs(), `msg="Starting WAL watcher"`); starts != 1 {
		t.Errorf("the queue was started %d times", starts)
	}
	if server.Restarts() != 0 {
		t.Errorf("Prometheus restarted %d times", server.Restarts())
	}
	p.CheckLoaded(t)
	t.Logf("%d sessions signed %d samples, none failed", len(keys), samples)
}
