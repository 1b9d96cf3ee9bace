package safety_test

import (
	"context"
	"flag"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/barepod"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var killFor = flag.Duration("kill-for", time.Minute, "how long the sidecar is killed every ten seconds")

// TestKilledEveryTenSeconds kills the sidecar, which relays, every ten seconds. Every scrape must arrive.
func TestKilledEveryTenSeconds(t *testing.T) {
	t.Parallel()
	site := barepod.New(t)
	p := site.Pod(t, newest(t, policy.DeliveryRelay))
	p.Start(t)
	for begun := time.Now(); time.Since(begun) < *killFor; {
		time.Sleep(10 * time.Second)
		p.Sidecar.Kill(t)
	}
	n := p.EventuallyDelivered(t, 1)
	p.CheckUnharmed(t, 0)
	t.Logf("killed %d times: %d scrapes, all of them in the workspace", p.Sidecar.Restarts(), n)
}

// TestInvalidConfigurationForThreeSessions uses a configuration that cannot be loaded for three session
// lifetimes, while Prometheus signs. No write is refused, because Prometheus moves to the relay. For this
// single move the user's own files are replaced once.
func TestInvalidConfigurationForThreeSessions(t *testing.T) {
	t.Parallel()
	const life = 15 * time.Second
	p := startSigning(t, life)
	testkit.Eventually(t, "samples", func() bool { return p.Count() > 3 && len(p.Missing(1, 2)) == 0 })

	testkit.Must(t, p.SetConfig(barepod.Invalid))
	testkit.Eventually(t, "a reload that fails", func() bool {
		v, ok := p.Metric("prometheus_config_last_reload_successful")
		return ok && v == 0
	})
	// Record each change of the metric from now on, as exactly as possible.
	ctx, stop := context.WithCancel(t.Context())
	var swaps []time.Duration // how long each period with a loaded configuration was
	var watching sync.WaitGroup
	watching.Go(func() {
		var since time.Time
		for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
			switch v, ok := p.Metric("prometheus_config_last_reload_successful"); {
			case ok && v == 1 && since.IsZero():
				since = time.Now()
			case ok && v == 0 && !since.IsZero():
				swaps = append(swaps, time.Since(since))
				since = time.Time{}
			}
		}
		if !since.IsZero() {
			swaps = append(swaps, time.Since(since))
		}
	})
	time.Sleep(3 * life)
	stop()
	watching.Wait()
	if len(swaps) != 1 {
		t.Errorf("the last configuration that loaded was back %d times (%v), want once", len(swaps), swaps)
	}
	if !p.Served(barepod.Invalid) {
		t.Error("the user's own configuration is not served in the end")
	}
	n := p.EventuallyDelivered(t, 1)
	// The relay's block starts before the other block ends. So AMP gets some samples twice and refuses the
	// repeated ones. The check above has shown that all samples have arrived.
	repeated := p.Refused()
	for _, write := range repeated {
		if write.Status != http.StatusBadRequest || !strings.Contains(write.Reason, "out of order") {
			t.Errorf("a write was refused: %+v", write)
		}
	}
	testkit.Must(t, p.SetConfig("# corrected"))
	testkit.Eventually(t, "the corrected configuration is loaded", func() bool {
		v, ok := p.Metric("prometheus_config_last_reload_successful")
		return ok && v == 1 && p.Served("# corrected")
	})
	p.EventuallyDelivered(t, 1)
	p.CheckUnharmed(t, 0)
	t.Logf("invalid for %s: %d scrapes, all of them in the workspace, %d writes with repetitions; the user's files were away for %v",
		3*life, n, len(repeated), swaps)
}
