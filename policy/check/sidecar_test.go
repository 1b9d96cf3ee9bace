package check

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

var (
	started = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	// asked is when doctor reads the status.
	asked = started.Add(3 * time.Hour)
)

// sidecarState returns the finding about a sidecar of one destination with this delivery, after
// a change.
func sidecarState(delivery sidecarconfig.Delivery, change func(*ObservedSidecar, *sidecarconfig.DestinationStatus)) Finding {
	s := ObservedSidecar{
		Status: sidecarconfig.Status{Started: started, Sidecar: "v1.0.0", Destinations: []sidecarconfig.DestinationStatus{
			{Name: "central", Delivery: delivery, Block: true, Served: true, Valid: true, Expires: asked.Add(time.Hour)},
		}},
		Config: sidecarconfig.Config{
			Version: sidecarconfig.VersionRelay, File: "prometheus.yml",
			Destinations: []sidecarconfig.Destination{{Name: "central", Delivery: policy.DeliveryRelay}},
		},
		CheckConfig: Command{"kubectl", "exec", "prometheus-0", "--", "promtool", "check", "config", "/etc/prometheus/prometheus.yml"},
		Restart:     Command{"kubectl", "rollout", "restart", "statefulset/prometheus"},
	}
	change(&s, &s.Status.Destinations[0])
	return SidecarState(s, asked)
}

func TestSidecarState(t *testing.T) {
	type state = ObservedSidecar
	type destination = sidecarconfig.DestinationStatus
	ago := func(d time.Duration) time.Time { return asked.Add(-d) }
	failure := func(status int, name string, age time.Duration) func(*state, *destination) {
		return func(_ *state, d *destination) {
			d.Relay = sidecarconfig.RelayFailure{At: ago(age), Status: status, Error: name}
		}
	}
	sigv4, relay, moving := sidecarconfig.DeliverySigV4, sidecarconfig.DeliveryRelay, sidecarconfig.DeliveryMoving
	for _, c := range []struct {
		name     string
		delivery sidecarconfig.Delivery
		change   func(*state, *destination)
		want     Status
		message  string
		fix      string
	}{
		{"sigv4", sigv4, func(*state, *destination) {}, Pass, "central: session valid, block served", ""},
		{"relay", relay, func(*state, *destination) {}, Pass, "central: session valid, relay", ""},
		{"sigv4 without a session", sigv4, func(_ *state, d *destination) { d.Valid = false }, Fail, "no valid session", "log"},
		{"with the reason", sigv4, func(_ *state, d *destination) { d.Valid, d.Error = false, "AccessDenied: \x1b[31mno" }, Fail,
			"no valid session (AccessDenied: [31mno)", "log"},
		{"block not served", sigv4, func(s *state, d *destination) { d.Served, s.Status.Config.Error = false, "line 3" }, Fail,
			"the block is not served: the configuration cannot be edited (line 3)", "log"},
		{"nothing is mirrored", relay, func(s *state, _ *destination) { s.Status.Error = "no space" }, Fail,
			"cannot be mirrored: no space", "log"},
		{"own entry", relay, func(_ *state, d *destination) {
			d.Served, d.Skipped = false, "the configuration writes to the workspace"
		},
			Warn, "writes to the workspace already", "take the remote_write"},
		{"no destination", relay, func(s *state, _ *destination) { s.Status.Destinations = nil }, Skip, "no destination", ""},
		{"a gap that goes on, by the status's clock", sigv4, func(s *state, d *destination) {
			s.Status.Time, d.GapSeconds, d.GapSince = started.Add(time.Minute), 4.2, started.Add(30*time.Second)
		}, Pass, "34 seconds without the block", ""},

		// A relay without a session.
		{"no session yet", relay, func(s *state, d *destination) {
			s.Status.Started, d.Expires, d.Valid = ago(time.Minute), time.Time{}, false
		},
			Warn, "no session for 60 seconds: samples wait in Prometheus's WAL; nothing is lost for about two hours", "log"},
		{"expired a moment ago", relay, func(_ *state, d *destination) { d.Expires, d.Valid = ago(time.Minute), false }, Warn,
			"60 seconds", "log"},
		{"none for a while", relay, func(s *state, d *destination) {
			s.Status.Started, d.Expires, d.Valid, d.Error = ago(20*time.Minute), time.Time{}, false, "STS does not answer"
		}, Fail, "no session for 20 minutes (STS does not answer): samples wait in Prometheus's WAL; nothing is lost for about two hours", "log"},
		{"none since the start, three hours ago", relay, func(_ *state, d *destination) { d.Expires, d.Valid = time.Time{}, false }, Fail,
			"samples are lost that are older", "log"},

		// Prometheus refuses the user's configuration.
		{"not taken", sigv4, func(_ *state, d *destination) { d.NotTaken = true }, Fail, "has not taken the latest session",
			"fix prometheus.yml"},
		{"a reload failed", sigv4, func(s *state, _ *destination) { s.Status.Prometheus.ReloadFailed = true }, Warn,
			"refused the configuration at its last reload", "promtool check config"},
		{"a reload failed, to the relay", relay, func(s *state, _ *destination) { s.Status.Prometheus.ReloadFailed = true }, Pass, "relay", ""},
		{"moved, and it still fails", relay, func(s *state, d *destination) { s.Status.Prometheus.ReloadFailed, d.Moved = true, "r" },
			Warn, "Prometheus still refuses the configuration", "fix prometheus.yml"},
		{"moved at the start", relay, func(_ *state, d *destination) { d.Moved = "there was no session" }, Pass,
			"central: session valid, relay (moved there from sigv4: there was no session; the next start", ""},
		{"moves", moving, func(_ *state, d *destination) { d.Moved = "it could not be renewed" }, Pass, "it could not be renewed", ""},
		{"moved for a reason of a later version", relay, func(_ *state, d *destination) {
			d.Moved = "\x1b]0;x" + strings.Repeat("y", 200)
		}, Pass,
			"sigv4: ]0;xyyy", ""},
		{"metrics not to be read", sigv4, func(s *state, _ *destination) { s.Status.Prometheus.Error = "401 Unauthorized" }, Warn,
			"metrics cannot be read (401 Unauthorized)", "ampbridge.io/delivery"},

		// AMP refuses.
		{"denied", relay, failure(403, "AccessDeniedException", time.Minute), Fail,
			"AMP answered a write with 403 AccessDeniedException, 60 seconds ago; Prometheus does not send these samples again", "aps:RemoteWrite"},
		{"denied long ago", relay, failure(403, "AccessDeniedException", time.Hour), Pass, "relay", ""},
		{"expired", relay, failure(403, "ExpiredTokenException", time.Minute), Warn, "sends them again", "clock"},
		{"rate or series", relay, failure(429, "ThrottlingException", time.Minute), Warn, "sends them again", "active series"},
		{"rate or series, and dropped", relay, func(s *state, d *destination) {
			failure(429, "ThrottlingException", time.Minute)(s, d)
			s.Config.Destinations[0].AMP.DropOn429 = true
		}, Fail, "does not send these samples again", "active series"},
		{"too large", relay, failure(413, "", time.Minute), Fail, "413", "maxSamplesPerSend"},
		{"duplicates", relay, failure(400, "ValidationException", time.Minute), Warn, "does not send these samples again", "out of order"},
		{"HELP texts, names", relay, failure(400, "ValidationException", time.Minute), Warn, "400 ValidationException",
			"metadata: {send: false}"},
		{"no workspace", relay, failure(404, "ResourceNotFoundException", time.Minute), Fail, "404", "list-workspaces"},
		{"AMP fails", relay, failure(503, "", time.Minute), Warn, "503", "AMP fails"},
		{"no way to AMP", relay, failure(0, "connection refused", time.Minute), Warn, "AMP could not be reached (connection refused)",
			"proxyURL"},

		// The block leaves out fields.
		{"version not known", relay, func(_ *state, d *destination) { d.Omitted = []string{"send_native_histograms (Prometheus 2.40)"} }, Warn,
			"leaves out send_native_histograms (Prometheus 2.40), because the version of Prometheus is not known", "app.kubernetes.io/version"},
		{"too old", relay, func(s *state, d *destination) {
			d.Omitted, s.Config.Prometheus.Version = []string{"send_native_histograms (Prometheus 2.40)"}, "2.22"
		}, Warn, "which Prometheus 2.22 does not know", "upgrade"},

		// Versions of sidecar and webhook.
		{"older sidecar", "", func(s *state, _ *destination) { s.Status.Sidecar = "" }, Warn, "older than the webhook", "sidecar.image"},
		{"both older", "", func(s *state, _ *destination) { s.Status.Sidecar, s.Config.Destinations[0].Delivery = "", "" }, Warn,
			"an earlier version injected the pod", "restart"},
		{"older webhook", sigv4, func(s *state, _ *destination) { s.Config.Destinations[0].Delivery = "" }, Warn,
			"the sidecar (v1.0.0) is newer than the webhook", "sidecar.image"},
		{"older sidecar without a session", "", func(s *state, d *destination) { s.Status.Sidecar, d.Valid = "", false }, Fail,
			"no valid session", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := sidecarState(c.delivery, c.change)
			judged(t, f, c.want, c.message)
			if f.Fix != nil && !strings.Contains(f.Fix.Summary, c.fix) {
				t.Errorf("fix: %s\nwant …%s…", f.Fix.Summary, c.fix)
			}
			if len(f.Message) > 500 || strings.ContainsFunc(f.Message, func(r rune) bool { return r < ' ' }) {
				t.Errorf("message: %q", f.Message)
			}
		})
	}
}

func TestTheWorstDestinationIsTheFinding(t *testing.T) {
	f := sidecarState(sidecarconfig.DeliveryRelay, func(s *ObservedSidecar, _ *sidecarconfig.DestinationStatus) {
		s.Status.Destinations = append(s.Status.Destinations,
			sidecarconfig.DestinationStatus{Name: "second", Delivery: sidecarconfig.DeliverySigV4, NotTaken: true, Valid: true},
			sidecarconfig.DestinationStatus{Name: "third", Delivery: sidecarconfig.DeliverySigV4, Skipped: "own"})
	})
	judged(t, f, Fail, "second: Prometheus has not taken")
	if len(f.Fix.Commands) != 1 || f.Fix.Commands[0][5] != "check" {
		t.Errorf("the fix has not the command that checks the configuration: %v", f.Fix.Commands)
	}
}

func TestUnreadSidecar(t *testing.T) {
	refused := errors.New("connection refused")
	config := sidecarconfig.Config{Version: sidecarconfig.VersionRelay}
	judged(t, UnreadSidecar(refused, config, "own/image:v1", "own/image:v1", nil), Warn, "sidecar.image of the policy is own/image:v1")
	judged(t, UnreadSidecar(refused, config, "own/image:v2", "own/image:v1", nil), Skip, "connection refused")
	judged(t, UnreadSidecar(refused, config, "own/image:v1", "", nil), Skip, "connection refused")
	config.Version = sidecarconfig.VersionSigV4
	judged(t, UnreadSidecar(refused, config, "own/image:v1", "own/image:v1", nil), Skip, "connection refused")
}

func TestPlain(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "AccessDenied": "AccessDenied", "a\x1b[2Jb\nc\u202ed": "a[2Jbcd", strings.Repeat("x", 300): strings.Repeat("x", 97) + "...",
	} {
		if got := Plain(text); got != want {
			t.Errorf("Plain(%q) = %q, want %q", text, got, want)
		}
	}
}

// Each version of Prometheus has other names for the queue that writes to the relay.
func TestQueueOfTheRelay(t *testing.T) {
	block := policy.Block{Name: "ampbridge-central", URL: "https://aps.example/workspaces/ws-1/api/v1/remote_write"}
	const relay = "http://127.0.0.1:41234/ampbridge-central/workspaces/ws-1/api/v1/remote_write"
	const p = "prometheus_remote_storage_"
	labels := func(pairs ...string) map[string]string {
		l := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			l[pairs[i]] = pairs[i+1]
		}
		return l
	}
	read := func(success string, sent float64, l map[string]string) Metrics {
		return Metrics{
			p + success: {{l, 500}},
			p + "queue_highest_sent_timestamp_seconds": {{l, sent}},
			p + "highest_timestamp_in_seconds":         {{nil, 1000}},
		}
	}
	other := func(old, replacement string) Metrics {
		return read("samples_total", 999, labels("remote_name", "x", "url", strings.Replace(relay, old, replacement, 1)))
	}
	for _, c := range []struct {
		name string
		m    Metrics
		want Status
	}{
		{"2.8", read("succeeded_samples_total", 999, labels("queue", "1:"+relay)), Pass},
		{"2.22, without a name", read("succeeded_samples_total", 999, labels("remote_name", "5f1b9c", "url", relay)), Pass},
		{"3.1, without a name", read("samples_total", 999, labels("remote_name", "5f1b9c", "url", relay)), Pass},
		{"3.15", read("samples_total", 999, labels("remote_name", "ampbridge-central", "url", relay)), Pass},
		{"sigv4", read("samples_total", 999, labels("remote_name", "ampbridge-central", "url", block.URL)), Pass},
		{"behind", read("succeeded_samples_total", 1, labels("queue", "1:"+relay)), Fail},
		{"another destination", other("central", "second"), Fail},
		{"another host", other("127.0.0.1", "127.0.0.1.evil"), Fail},
		{"not a URL", read("succeeded_samples_total", 999, labels("queue", "1:%zz")), Fail},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := FlowState(c.m, c.m, FlowWindow, []policy.Block{block}, time.Unix(1000, 0))
			if f.Status != c.want {
				t.Errorf("%s: %s", f.Status, f.Message)
			}
		})
	}
	// While the pod moves to the relay, the sigv4 queue makes no progress, and the relay's queue sends.
	both := read("samples_total", 1, labels("remote_name", "ampbridge-central", "url", block.URL))
	for name, samples := range read("samples_total", 999, labels("remote_name", "ampbridge-central-relay", "url", relay)) {
		both[name] = append(both[name], samples...)
	}
	f, _ := FlowState(both, both, FlowWindow, []policy.Block{block}, time.Unix(1000, 0))
	judged(t, f, Pass, "1 second behind")
}

// Prometheus before 2.23 counts the accepted samples. That counter shows whether AMP refuses a
// whole queue or only a part of it.
func TestOldPrometheusCountsWhatWasAccepted(t *testing.T) {
	const p = "prometheus_remote_storage_"
	block := policy.Block{Name: "ampbridge-central", URL: "https://aps.example/workspaces/ws-1/api/v1/remote_write"}
	read := func(newest, sent, accepted, failed, pending float64) Metrics {
		l := map[string]string{"queue": "0:http://127.0.0.1:41234" + block.RelayPath()}
		return Metrics{
			p + "succeeded_samples_total": {{l, accepted}}, p + "failed_samples_total": {{l, failed}}, p + "pending_samples": {{l, pending}},
			p + "queue_highest_sent_timestamp_seconds": {{l, sent}}, p + "highest_timestamp_in_seconds": {{nil, newest}},
		}
	}
	f, _ := FlowState(read(1000, 999, 0, 900, 400), read(1020, 1019, 0, 1400, 400), FlowWindow, []policy.Block{block}, time.Unix(1000, 0))
	judged(t, f, Fail, "500 samples were refused within 20 seconds")
	f, _ = FlowState(read(1000, 999, 0, 900, 400), read(1020, 1019, 10, 1400, 400), FlowWindow, []policy.Block{block}, time.Unix(1000, 0))
	judged(t, f, Fail, "500 samples were refused within 20 seconds, and fewer were accepted")
	f, _ = FlowState(read(1000, 999, 0, 900, 400), read(1020, 1019, 600, 1400, 400), FlowWindow, []policy.Block{block}, time.Unix(1000, 0))
	judged(t, f, Warn, "samples were refused since the start")
}
