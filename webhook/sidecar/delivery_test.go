package sidecar

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// TestMoves: what becomes of a destination with sigv4, whose sessions last half an hour,
// by what Prometheus's metrics say.
func TestMoves(t *testing.T) {
	begin := time.Unix(1_700_000_000, 0)
	at := func(minutes float64) time.Time { return begin.Add(time.Duration(minutes * float64(time.Minute))) }
	lasting := func(from, until float64) session.Session {
		return session.Session{AccessKeyID: "ASIA", Obtained: at(from), Expires: at(until)}
	}
	first, second := lasting(0, 30), lasting(10, 40)
	const sigv4, moving, relay = sidecarconfig.DeliverySigV4, sidecarconfig.DeliveryMoving, sidecarconfig.DeliveryRelay
	for name, tc := range map[string]struct {
		now          float64
		from         sidecarconfig.Delivery
		latest, held session.Session
		taken        bool
		seen         observation
		want         sidecarconfig.Delivery
		reason       string
	}{
		"a session that is young":        {now: 19, from: sigv4, latest: first, held: first, taken: true, want: sigv4},
		"one that was renewed and taken": {now: 25, from: sigv4, latest: second, held: second, taken: true, want: sigv4},
		"one that could not be renewed": {now: 20, from: sigv4, latest: first, held: first, taken: true, want: moving,
			reason: movedByRenewal},
		"a new one that was not taken":      {now: 20, from: sigv4, latest: second, held: first, want: moving, reason: movedByReload},
		"a Prometheus that has not started": {now: 19, from: sigv4, latest: first, want: sigv4},
		"one that starts too late": {now: 20, from: sigv4, latest: first, seen: observation{absent: true}, want: relay,
			reason: movedByRenewal},
		"a sidecar that has just restarted":  {now: 20, from: sigv4, latest: first, want: moving, reason: movedByRenewal},
		"and restarted in a move":            {now: 21, from: moving, latest: first, want: moving},
		"one that starts with a new session": {now: 25, from: sigv4, latest: second, want: sigv4},
		"one that has ended, without session": {now: 20, from: sigv4, latest: first, held: first, seen: observation{absent: true}, want: relay,
			reason: movedByRenewal},
		"a move that is not loaded yet": {now: 21, from: moving, latest: first, held: first, want: moving},
		"a move whose backlog is not sent": {
			now: 22, from: moving, latest: first, held: first, taken: true,
			seen: observation{lastReload: at(21), queues: map[string]queue{"amp": {sent: at(20.9), quiet: at(22)}}}, want: moving,
		},
		"a move whose backlog may be sent, but for a slow scrape": {
			now: 22, from: moving, latest: first, held: first, taken: true,
			seen: observation{lastReload: at(21), queues: map[string]queue{"amp": {sent: at(21.1), quiet: at(22)}}}, want: moving,
		},
		"a move whose backlog is sent": {
			now: 22, from: moving, latest: first, held: first, taken: true,
			seen: observation{lastReload: at(21), queues: map[string]queue{"amp": {sent: at(21.5), quiet: at(22)}, "other": {pending: 1}}},
			want: relay,
		},
		"a move with a shard that AMP refuses": {
			now: 22, from: moving, latest: first, held: first, taken: true,
			seen: observation{lastReload: at(21), queues: map[string]queue{"amp": {sent: at(21.9), pending: 5, quiet: at(21.5)}}}, want: moving,
		},
		"a move of a queue that is never empty": {
			now: 23, from: moving, latest: first, held: first, taken: true,
			seen: observation{lastReload: at(21), queues: map[string]queue{"amp": {sent: at(22.9), pending: 5, quiet: at(21.5)}}}, want: relay,
		},
		"a backlog of another workspace": {
			now: 22, from: moving, latest: first, held: first, taken: true,
			seen: observation{lastReload: at(21), queues: map[string]queue{"other": {sent: at(21.5)}}}, want: moving,
		},
		"a move that lasts for a third":     {now: 30.5, from: moving, latest: lasting(15, 45), held: lasting(15, 45), want: relay},
		"a move whose session is over":      {now: 29.9, from: moving, latest: second, held: first, want: relay},
		"the relay, with a session again":   {now: 50, from: relay, latest: lasting(45, 75), held: first, taken: true, want: relay},
		"the relay, without a session":      {now: 50, from: relay, want: relay},
		"the relay, while sigv4 is held on": {now: 35, from: relay, latest: second, held: first, want: relay},
	} {
		t.Run(name, func(t *testing.T) {
			d := &destination{Destination: sidecarconfig.Destination{Name: "central"}, delivery: tc.from, held: tc.held}
			d.block.URL = "amp"
			d.latest.Store(&tc.latest)
			s := &server{destinations: []*destination{d}, taken: tc.taken, prometheus: tc.seen, log: slog.New(slog.DiscardHandler)}
			s.config.SessionSeconds, d.movedAt = 1800, at(20)
			s.config.Credentials = filepath.Join(t.TempDir(), "credentials")
			s.metrics = newMetrics(s)
			s.advance(at(tc.now))
			if d.delivery != tc.want || d.reason != tc.reason {
				t.Errorf("%s (%s), want %s (%s)", d.delivery, d.reason, tc.want, tc.reason)
			}
			// The next container of the sidecar goes on with it.
			again := &server{destinations: []*destination{{Destination: d.Destination}}, config: s.config, log: s.log}
			again.recall()
			if changed := tc.want != tc.from; changed && again.destinations[0].delivery != tc.want {
				t.Errorf("after a restart: %s", again.destinations[0].delivery)
			}
		})
	}
}

// TestParseMetrics reads the three metrics, with and without other labels, and names
// what is no page of Prometheus's.
func TestParseMetrics(t *testing.T) {
	page := `# HELP prometheus_config_last_reload_successful Whether the last configuration reload attempt was successful.
# TYPE prometheus_config_last_reload_successful gauge
prometheus_config_last_reload_successful 0
prometheus_config_last_reload_success_timestamp_seconds 1.7e+09
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{remote_name="a",url="https://amp/1"} 1.7000001e+09
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{remote_name="b\"}",url="https://amp/2"} 0
prometheus_remote_storage_samples_pending{remote_name="b\"}",url="https://amp/2"} 7
prometheus_remote_storage_samples_retried_total{remote_name="b\"}",url="https://amp/2"} 3
` + strings.Repeat("go_goroutines 1\n", 1000)
	got, err := parseMetrics(strings.NewReader(page))
	if err != nil || got.absent || !got.reloadFailed || !got.lastReload.Equal(time.Unix(1_700_000_000, 0)) || len(got.queues) != 2 ||
		!got.queues["https://amp/1"].sent.Equal(time.Unix(1_700_000_100, 0)) || got.queues["https://amp/2"].pending != 7 {
		t.Errorf("%+v, %v", got, err)
	}
	starting := strings.Replace(page, "1.7e+09", "0", 1)
	if got, err := parseMetrics(strings.NewReader(starting)); err != nil || !got.absent || got.reloadFailed {
		t.Errorf("of a Prometheus that has loaded nothing: %+v, %v", got, err)
	}
	for _, other := range []string{"", "<html>", "up 1\n", "prometheus_config_last_reload_successful{\n"} {
		if got, err := parseMetrics(strings.NewReader(other)); err == nil {
			t.Errorf("%q: %+v", other, got)
		}
	}
}

// TestParseThrottling: both versions of cgroups.
func TestParseThrottling(t *testing.T) {
	for _, tc := range []struct {
		text, field   string
		periods, time float64
		ok            bool
	}{
		{"usage_usec 17\nnr_periods 4\nnr_throttled 3\nthrottled_usec 250000\n", "throttled_usec", 3, 250000, true},
		{"nr_periods 4\nnr_throttled 2\nthrottled_time 5\n", "throttled_time", 2, 5, true},
		{"usage_usec 17\n", "throttled_usec", 0, 0, false},
	} {
		if periods, time, ok := parseThrottling(tc.text, tc.field); periods != tc.periods || time != tc.time || ok != tc.ok {
			t.Errorf("%q: %v, %v, %v", tc.text, periods, time, ok)
		}
	}
}
