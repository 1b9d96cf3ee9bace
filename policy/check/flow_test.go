package check

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// A Prometheus without anything to send for ten minutes is a failure, even if its queue has no
// errors. The ten minutes are by Prometheus's clock, not by doctor's.
func TestNothingFlows(t *testing.T) {
	const now = 1_700_000_000
	minutes := func(n float64) float64 { return now - 60*n }
	for _, c := range []struct {
		name    string
		write   remoteWrite
		up      float64 // minutes; 0: not known
		gc      float64 // by Prometheus's clock; 0: not known
		at      int64   // by doctor's clock
		apart   time.Duration
		status  Status
		message string
	}{
		{"it stopped 25 minutes ago", remoteWrite{minutes(25), minutes(25), 900, 0, 0, 0}, 60, 0, now, FlowWindow, Fail,
			"central: nothing is flowing: the newest sample that was sent is 25 minutes old"},
		{"it stopped 25 minutes ago, at the first read", remoteWrite{minutes(25), minutes(25), 900, 0, 0, 0}, 60, 0, now, 0,
			Skip, "not known yet"},
		{"it stopped 11 minutes ago, after retries", remoteWrite{minutes(11), minutes(11), 900, 100, 0, 0}, 60, 0, now,
			FlowWindow, Fail,
			"11 minutes old"},
		{"nine minutes are not ten", remoteWrite{minutes(9), minutes(9), 900, 0, 0, 0}, 60, 0, now, 0, Pass,
			"0 seconds behind"},
		{"never, in an hour", remoteWrite{}, 60, 0, now, FlowWindow, Fail,
			"nothing was ever sent, and Prometheus has been running for 60 minutes"},
		{"never, in a minute", remoteWrite{}, 1, 0, now, FlowWindow, Skip, "nothing was sent yet"},
		{"never, and the start is not known", remoteWrite{}, 0, 0, now, FlowWindow, Skip, "nothing was sent yet"},
		{"doctor's clock is an hour ahead", remoteWrite{now, now - 1, 900, 0, 0, 20}, 60, minutes(1), now + 3600, 0, Pass,
			"1 second behind"},
		{"doctor's clock is an hour behind", remoteWrite{minutes(25), minutes(25), 900, 0, 0, 0}, 60, minutes(1), now - 3600,
			FlowWindow, Fail,
			"24 minutes old"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.write.metrics("central")
			if c.up > 0 {
				m["process_start_time_seconds"] = series("", "", minutes(c.up))
			}
			if c.gc > 0 {
				m["go_memstats_last_gc_time_seconds"] = series("", "", c.gc)
			}
			f, _ := FlowState(m, m, c.apart, []policy.Block{{Name: "central"}}, time.Unix(c.at, 0))
			judged(t, f, c.status, c.message)
		})
	}
}

// Lost metadata, exemplars and old samples are a warning. Series that the user's rules drop are not.
func TestLosses(t *testing.T) {
	const now = 1_700_000_000
	name := map[string]string{"remote_name": "central"}
	because := func(reason string) map[string]string {
		l := maps.Clone(name)
		l["reason"] = reason
		return l
	}
	plain, histograms := policy.Block{Name: "central"}, policy.Block{Name: "central", SendNativeHistograms: true}
	for _, c := range []struct {
		name    string
		metric  string
		labels  map[string]string
		block   policy.Block
		status  Status
		message string
	}{
		{"metadata refused", "metadata_failed_total", name, plain, Warn, "7 metadata entries (HELP, TYPE) were refused"},
		{"exemplars refused", "exemplars_failed_total", name, plain, Warn, "7 exemplars were refused"},
		{"samples too old", "samples_dropped_total", because("too_old"), plain, Warn, "7 samples were dropped as too old"},
		{"histograms too old", "histograms_dropped_total", because("too_old"), histograms, Warn,
			"7 native histograms were dropped as too old"},
		{"exemplars too old", "exemplars_dropped_total", because("too_old"), plain, Warn, "7 exemplars were dropped"},
		{"unknown series", "samples_dropped_total", because("unintentionally_dropped_series"), plain, Warn, "did not know"},
		{"relabelled", "samples_dropped_total", because("dropped_series"), plain, Pass, "1 second behind"},
		{"dropped, before there were reasons", "samples_dropped_total", name, plain, Pass, "1 second behind"},
		{"of another entry", "metadata_failed_total", map[string]string{"remote_name": "own"}, plain, Pass,
			"1 second behind"},
		{"histograms that are not sent", "histograms_in_total", nil, plain, Warn, "7 native histograms were not sent"},
		{"histograms that are sent", "histograms_in_total", nil, histograms, Pass, "1 second behind"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := remoteWrite{now, now - 1, 900, 0, 0, 20}.metrics("central")
			metric := "prometheus_remote_storage_" + c.metric
			m[metric] = append(m[metric], Sample{Labels: c.labels, Value: 7})
			f, final := FlowState(m, m, 0, []policy.Block{c.block}, time.Unix(now, 0))
			judged(t, f, c.status, c.message)
			if !final {
				t.Error("it is not final")
			}
		})
	}
}

// Native histograms count as samples, so a queue that sends nothing else is judged, too.
func TestRefusedHistograms(t *testing.T) {
	const now, prefix = 1_700_000_000, "prometheus_remote_storage_"
	read := func(sent, attempts, failed float64) Metrics {
		m := remoteWrite{newest: sent, sent: sent}.metrics("central")
		m[prefix+"histograms_total"] = series("remote_name", "central", attempts)
		m[prefix+"histograms_failed_total"] = series("remote_name", "central", failed)
		return m
	}
	blocks := []policy.Block{{Name: "central", SendNativeHistograms: true}}
	f, _ := FlowState(read(now, 90, 90), read(now+20, 140, 140), FlowWindow, blocks, time.Unix(now+20, 0))
	judged(t, f, Fail, "50 samples were refused")
	f, _ = FlowState(read(now, 90, 0), read(now+20, 140, 0), FlowWindow, blocks, time.Unix(now+20, 0))
	judged(t, f, Pass, "nothing refused")
}

// If Prometheus's metrics cannot be read, the relay still knows when AMP accepted a write.
func TestRelayFlow(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	one := func(delivery sidecarconfig.Delivery, taken *time.Time) sidecarconfig.DestinationStatus {
		return sidecarconfig.DestinationStatus{Name: "central", Delivery: delivery, Taken: taken}
	}
	relay := sidecarconfig.DeliveryRelay
	for _, c := range []struct {
		name    string
		up      time.Duration
		list    []sidecarconfig.DestinationStatus
		status  Status
		message string
	}{
		{"it flows", time.Hour, []sidecarconfig.DestinationStatus{one(relay, ago(5*time.Second))}, Pass,
			"AMP took a write through the relay 5 seconds"},
		{"it stopped", time.Hour, []sidecarconfig.DestinationStatus{one(relay, ago(11*time.Minute))}, Fail,
			"AMP took the last write 11 minutes ago"},
		{"one of two stopped", time.Hour, []sidecarconfig.DestinationStatus{one(relay, ago(0)), one(relay, ago(time.Hour))},
			Fail, "60 minutes ago"},
		{"never, in an hour", time.Hour, []sidecarconfig.DestinationStatus{one(relay, &time.Time{})}, Fail,
			"no write since the sidecar started"},
		{"never, in a minute", time.Minute, []sidecarconfig.DestinationStatus{one(relay, &time.Time{})}, Skip,
			"no write has come"},
		{"sigv4", time.Hour, []sidecarconfig.DestinationStatus{one(sidecarconfig.DeliverySigV4, ago(0))}, Skip, "401"},
		{"an older sidecar", time.Hour, []sidecarconfig.DestinationStatus{one(relay, nil)}, Skip, "401"},
		{"no destination", time.Hour, nil, Skip, "no destination"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status := sidecarconfig.Status{Time: now, Started: now.Add(-c.up), Destinations: c.list}
			judged(t, RelayFlow(status, "the request for metrics was answered with 401"), c.status, c.message)
		})
	}
}

func TestFlowState(t *testing.T) {
	const now, late = 1_700_000_000, 1_700_000_000 - 100_000
	for _, c := range []struct {
		name        string
		first, last remoteWrite
		apart       time.Duration
		status      Status
		message     string
		final       bool
	}{
		{"well, at the first read", remoteWrite{now, now - 1, 900, 0, 0, 20}, remoteWrite{now, now - 1, 900, 0, 0, 20}, 0, Pass,
			"central is 1 second behind, nothing refused, nothing retried", true},
		{"it failed once, at the first read", remoteWrite{now, now - 1, 900, 100, 0, 20}, remoteWrite{now, now - 1, 900, 100, 0, 20}, 0, Skip,
			"not known yet", false},
		{"it failed once, and sends", remoteWrite{now, now - 1, 900, 100, 0, 20}, remoteWrite{now + 5, now + 4, 1000, 100, 0, 0},
			5 * time.Second, Pass, "100 retried since the start", true},
		{"it failed once, and has nothing to send", remoteWrite{now, now, 900, 100, 0, 0}, remoteWrite{now, now, 900, 100, 0, 0}, FlowWindow,
			Pass, "0 seconds behind", true},

		// AMP answers 503 from the start: attempts and retries grow, nothing is sent.
		{"retried and never sent", remoteWrite{now, 0, 500, 400, 0, 100}, remoteWrite{now + 20, 0, 900, 800, 0, 100}, FlowWindow, Fail,
			"central: 100 samples are pending, 400 were retried within 20 seconds, and none was sent; none was ever sent", true},
		{"retried and never sent, too soon to tell", remoteWrite{now, 0, 500, 400, 0, 100}, remoteWrite{now + 4, 0, 600, 500, 0, 100},
			4 * time.Second, Skip, "not known yet", false},
		// AMP does not answer: one attempt hangs, nothing is retried yet.
		{"pending and never sent", remoteWrite{now, 0, 100, 0, 0, 100}, remoteWrite{now + 20, 0, 100, 0, 0, 400}, FlowWindow, Fail,
			"400 samples are pending, 0 were retried", true},
		// It worked until a minute ago: less behind than is tolerated, and stuck.
		{"stuck for a minute", remoteWrite{now, now - 40, 5000, 600, 0, 300}, remoteWrite{now + 20, now - 40, 5200, 800, 0, 500}, FlowWindow,
			Fail,
			"the newest that was sent is 60 seconds behind", true},
		{"stuck, and behind", remoteWrite{now, late, 5000, 600, 0, 300}, remoteWrite{now, late, 5000, 600, 0, 300}, FlowWindow, Fail,
			"28 hours behind", true},

		// A refused batch counts as sent: the timestamp advances, nothing arrives.
		{"all refused", remoteWrite{now, now - 1, 900, 0, 900, 0}, remoteWrite{now + 20, now + 19, 1400, 0, 1400, 0}, FlowWindow, Fail,
			"central: 500 samples were refused within 20 seconds, and none is known to be accepted", true},
		{"all refused, and some in flight", remoteWrite{now, now - 1, 900, 0, 900, 0}, remoteWrite{now + 20, now + 19, 1500, 0, 1400, 100},
			FlowWindow, Fail,
			"none is known to be accepted", true},
		{"some refused", remoteWrite{now, now - 1, 900, 0, 0, 0}, remoteWrite{now + 5, now + 4, 1400, 0, 12, 0}, 5 * time.Second, Warn,
			"12 samples were refused since the start", true},
		{"most refused", remoteWrite{now, now - 1, 900, 0, 0, 0}, remoteWrite{now + 5, now + 4, 1400, 0, 300, 0}, 5 * time.Second, Fail,
			"300 samples were refused within 5 seconds, and fewer were accepted", true},
		{"some refused long ago", remoteWrite{now, now - 1, 900, 0, 12, 0}, remoteWrite{now + 5, now + 4, 1400, 0, 12, 0},
			5 * time.Second, Warn,
			"12 samples were refused since the start", true},

		{"it catches up", remoteWrite{now, late, 500, 400, 0, 9000}, remoteWrite{now + 5, late + 500, 5000, 400, 0, 9000},
			5 * time.Second, Warn,
			"28 hours behind, and catches up", true},
		{"it falls behind", remoteWrite{now, late, 500, 400, 0, 9000}, remoteWrite{now + 5, late + 1, 600, 400, 0, 9000}, 5 * time.Second,
			Fail, "central is 28 hours behind", true},
		{"nothing scraped yet", remoteWrite{}, remoteWrite{}, FlowWindow, Skip, "nothing was sent yet, and nothing waits", true},
		{"started again between the reads", remoteWrite{now, now - 1, 900, 90, 0, 20}, remoteWrite{now + 20, 0, 40, 40, 0, 40}, FlowWindow,
			Fail, "40 were retried", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, final := FlowState(c.first.metrics("central"), c.last.metrics("central"), c.apart, []policy.Block{{Name: "central"}},
				time.Unix(now, 0))
			judged(t, f, c.status, c.message)
			if final != c.final {
				t.Errorf("final: %v", final)
			}
		})
	}
}

func TestFlowStateOfSeveral(t *testing.T) {
	const now = 1_700_000_000
	well, stuck := remoteWrite{now, now - 1, 900, 0, 0, 20}, remoteWrite{now, 0, 900, 800, 0, 100}
	refused, idle := remoteWrite{now, now - 1, 900, 0, 9, 0}, remoteWrite{now, 0, 0, 0, 0, 0}
	for _, c := range []struct {
		name    string
		a, b    remoteWrite
		apart   time.Duration
		status  Status
		message string
		final   bool
	}{
		{"both well", well, well, 0, Pass, "a is 1 second behind, nothing refused, nothing retried; b is", true},
		{"one is stuck, too soon to tell", well, stuck, 0, Skip, "b: not known yet", false},
		{"one is stuck", well, stuck, FlowWindow, Fail, "b: 100 samples are pending", true},
		{"a warning does not hide a skipped one", refused, idle, FlowWindow, Skip, "b: nothing was sent yet", true},
		{"a skipped one hides a warning", idle, refused, FlowWindow, Skip, "a: nothing was sent yet", true},
		{"a skipped one does not hide a failed one", idle, stuck, FlowWindow, Fail, "b: 100 samples", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.a.metrics("a")
			c.b.addTo(m, "b")
			f, final := FlowState(m, m, c.apart, []policy.Block{{Name: "a"}, {Name: "b"}}, time.Unix(now, 0))
			judged(t, f, c.status, c.message)
			if final != c.final {
				t.Errorf("final: %v", final)
			}
		})
	}
	m := well.metrics("mine")
	for apart, want := range map[time.Duration]bool{0: false, FlowWindow: true} {
		f, final := FlowState(m, m, apart, []policy.Block{{Name: "ampbridge-central"}}, time.Unix(now, 0))
		judged(t, f, Fail, "no remote_write of the name ampbridge-central")
		if final != want {
			t.Errorf("a block that is not there, after %s: final %v", apart, final)
		}
	}
}

// If writeRelabelConfigs drop every sample, nothing is ever sent, and waiting does not help.
func TestFlowOfDroppedSeries(t *testing.T) {
	m := func(dropped float64) Metrics {
		const p = "prometheus_remote_storage_"
		l := map[string]string{"remote_name": "central", "url": "https://x"}
		reason := map[string]string{"remote_name": "central", "url": "https://x", "reason": "dropped_series"}
		return Metrics{p + "samples_total": {{l, 0}}, p + "samples_dropped_total": {{reason, dropped}},
			p + "highest_timestamp_in_seconds": {{nil, 1000}}}
	}
	for dropped, want := range map[float64]Status{12000: Fail, 0: Skip} {
		f, final := FlowState(m(dropped), m(dropped), FlowWindow, []policy.Block{{Name: "central"}}, time.Unix(1000, 0))
		if f.Status != want || !final || want == Fail && !strings.Contains(f.Message, "dropped all 12000 samples") {
			t.Errorf("%.0f dropped: %s: %s", dropped, f.Status, f.Message)
		}
	}
}

// series returns a metric with one series, which has the label unless it is empty.
func series(label, labelValue string, value float64) []Sample {
	if label == "" {
		return []Sample{{Value: value}}
	}
	return []Sample{{Labels: map[string]string{label: labelValue}, Value: value}}
}

// remoteWrite contains Prometheus's metrics of one remote_write.
type remoteWrite struct{ newest, sent, attempts, retried, failed, pending float64 }

// addTo adds the metrics of a remote_write with the name.
func (w remoteWrite) addTo(m Metrics, name string) {
	const prefix = "prometheus_remote_storage_"
	m[prefix+"highest_timestamp_in_seconds"] = series("", "", w.newest)
	for metric, value := range map[string]float64{
		"queue_highest_sent_timestamp_seconds": w.sent, "samples_total": w.attempts, "samples_retried_total": w.retried,
		"samples_failed_total": w.failed, "samples_pending": w.pending,
	} {
		m[prefix+metric] = append(m[prefix+metric], series("remote_name", name, value)...)
	}
}

func (w remoteWrite) metrics(name string) Metrics {
	m := Metrics{}
	w.addTo(m, name)
	return m
}
