package check

import (
	"maps"
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
