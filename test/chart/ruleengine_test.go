package chart

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// faultBegins is the minute in which the fault of a case begins, by the rule engine's clock.
const faultBegins = 10

// behaviour makes a series' values, minute by minute.
type behaviour func(minute int, before float64) float64

func gauge(v float64) behaviour { return func(int, float64) float64 { return v } }

func counter(perMinute float64) behaviour {
	return func(_ int, before float64) float64 { return before + perMinute }
}

// clock is the time of something that happened just now, and stopped that of something
// that does not happen any more.
func clock(minute int, _ float64) float64 { return float64(minute) * 60 }

func stopped(_ int, before float64) float64 { return before }

// once is a counter that moves by one when the fault begins.
func once(minute int, before float64) float64 {
	if minute == faultBegins {
		return before + 1
	}
	return before
}

const (
	ofWebhook = `namespace="ampbridge-system",job="ampbridge-webhook",pod="ampbridge-webhook-0"`
	ofSync    = `namespace="ampbridge-system",job="ampbridge-sync",pod="ampbridge-sync-0"`
	ofPod     = `namespace="monitoring",pod="prometheus-0"`
	ofQueue   = ofPod + `,remote_name="ampbridge-central.relay",` +
		`url="http://127.0.0.1:40123/ampbridge-central/workspaces/ws-0001/api/v1/remote_write"`
)

func relayed(status string) string {
	return `ampbridge_relay_requests_total{` + ofPod + `,destination="central",status="` + status + `"}`
}

func refused(reason string) string {
	return `ampbridge_relay_refused_total{` + ofPod + `,destination="central",reason="` + reason + `"}`
}

func moved(reason string) string {
	return `ampbridge_moves_total{` + ofPod + `,destination="central",reason="` + reason + `"}`
}

func decided(labels string) string {
	return `ampbridge_admission_decisions_total{` + ofWebhook + `,resource="pod",` + labels + `}`
}

func audited(finding string) string {
	return `ampbridge_audit_pods{` + ofSync + `,finding="` + finding + `"}`
}

// well is what the programs export when nothing is wrong. That they do export it is what
// TestQueriesFindSeries shows.
func well() map[string]behaviour {
	return map[string]behaviour{
		`up{` + ofWebhook + `}`: gauge(1),
		`up{` + ofSync + `}`:    gauge(1),
		`ampbridge_certificate_expiry_timestamp_seconds{` + ofWebhook + `}`: gauge(60 * 24 * 3600),
		`ampbridge_certificate_trusted{` + ofWebhook + `}`:                  gauge(1),
		`ampbridge_policy_last_load_success{` + ofWebhook + `}`:             gauge(1),
		`ampbridge_policy_last_load_success{` + ofSync + `}`:                gauge(1),
		decided(`decision="inject",reason="Granted"`):                       counter(1),
		decided(`decision="skip",reason="NotPrometheus"`):                   counter(1),

		`ampbridge_sync_leader{` + ofSync + `}`:                         gauge(1),
		`ampbridge_sync_last_success_timestamp_seconds{` + ofSync + `}`: clock,
		`ampbridge_sync_refusals{` + ofSync + `}`:                       gauge(0),
		audited("healthy"):  gauge(4),
		audited("missed"):   gauge(0),
		audited("outdated"): gauge(1),
		audited("hanging"):  gauge(0),
		audited("stuck"):    gauge(0),
		`ampbridge_audit_last_success_timestamp_seconds{` + ofSync + `}`: clock,

		`ampbridge_session_valid{` + ofPod + `,destination="central"}`:     gauge(1),
		`ampbridge_session_not_taken{` + ofPod + `,destination="central"}`: gauge(0),
		moved("renewal"):       counter(0),
		moved("reload"):        counter(0),
		moved("start"):         counter(0),
		relayed("2xx"):         counter(600),
		relayed("4xx"):         counter(0),
		relayed("429"):         counter(0),
		relayed("5xx"):         counter(1), // a few are normal
		refused("unreachable"): counter(0),
		refused("no_session"):  counter(0),
		refused("throttled"):   counter(0),
		`ampbridge_gap_seconds{` + ofPod + `,destination="central"}`: gauge(3),
		`ampbridge_loop_idle_seconds{` + ofPod + `}`:                 gauge(0.2),
		`ampbridge_cpu_throttled_seconds_total{` + ofPod + `}`:       counter(1),

		`prometheus_remote_storage_samples_total{` + ofQueue + `}`:                                                   counter(60000),
		`prometheus_remote_storage_samples_failed_total{` + ofQueue + `}`:                                            counter(10),
		`prometheus_remote_storage_highest_timestamp_in_seconds{` + ofPod + `}`:                                      clock,
		`prometheus_remote_storage_queue_highest_sent_timestamp_seconds{` + ofQueue + `}`:                            clock,
		`prometheus_remote_storage_queue_highest_sent_timestamp_seconds{` + ofPod + `,url="http://elsewhere/write"}`: gauge(0),
	}
}

// fault is what the series of an alert do while something is wrong. slow is how long the
// alert takes to see it, its own `for` aside. remembered is how long it stays after the
// fault.
type fault struct {
	series           map[string]behaviour
	slow, remembered time.Duration
}

// faults has one for each alert.
var faults = map[string]fault{
	"AmpbridgeWebhookDown": {series: map[string]behaviour{`up{` + ofWebhook + `}`: gauge(0)}},
	"AmpbridgeCertificateExpires": {series: map[string]behaviour{
		`ampbridge_certificate_expiry_timestamp_seconds{` + ofWebhook + `}`: gauge(20 * 24 * 3600),
	}},
	"AmpbridgeCertificateNotTrusted": {series: map[string]behaviour{`ampbridge_certificate_trusted{` + ofWebhook + `}`: gauge(0)}},
	"AmpbridgePolicyRefused":         {series: map[string]behaviour{`ampbridge_policy_last_load_success{` + ofSync + `}`: gauge(0)}},
	"AmpbridgeNotGranted": {
		series: map[string]behaviour{decided(`decision="skip",reason="NotGranted"`): once}, remembered: time.Hour,
	},
	"AmpbridgeAdmissionErrors": {series: map[string]behaviour{decided(`decision="error",reason="LookupFailed"`): once}},
	"AmpbridgeSyncDown":        {series: map[string]behaviour{`up{` + ofSync + `}`: gauge(0)}},
	"AmpbridgeSyncNoLeader":    {series: map[string]behaviour{`ampbridge_sync_leader{` + ofSync + `}`: gauge(0)}},
	"AmpbridgeSyncNotSucceeding": {
		series: map[string]behaviour{`ampbridge_sync_last_success_timestamp_seconds{` + ofSync + `}`: stopped}, slow: time.Hour,
	},
	"AmpbridgeSyncRefuses":     {series: map[string]behaviour{`ampbridge_sync_refusals{` + ofSync + `}`: gauge(2)}},
	"AmpbridgePodsNotInjected": {series: map[string]behaviour{audited("missed"): gauge(1)}},
	"AmpbridgePodsHang":        {series: map[string]behaviour{audited("stuck"): gauge(1)}},
	"AmpbridgeCircuitOpen": {series: map[string]behaviour{
		`ampbridge_audit_breaker_open{` + ofSync + `,exported_namespace="monitoring",kind="StatefulSet",name="prometheus-k8s"}`: gauge(1),
	}},
	"AmpbridgeAuditNotSucceeding": {
		series: map[string]behaviour{`ampbridge_audit_last_success_timestamp_seconds{` + ofSync + `}`: stopped}, slow: time.Hour,
	},
	"AmpbridgeNoSession":       {series: map[string]behaviour{`ampbridge_session_valid{` + ofPod + `,destination="central"}`: gauge(0)}},
	"AmpbridgeSessionNotTaken": {series: map[string]behaviour{`ampbridge_session_not_taken{` + ofPod + `,destination="central"}`: gauge(1)}},
	"AmpbridgeWritesRefused":   {series: map[string]behaviour{relayed("429"): counter(60)}},
	"AmpbridgeRelayRefuses":    {series: map[string]behaviour{refused("unreachable"): counter(10)}},
	"AmpbridgeRelayThrottled":  {series: map[string]behaviour{`ampbridge_cpu_throttled_seconds_total{` + ofPod + `}`: counter(20)}},
	"AmpbridgeMovedToRelay":    {series: map[string]behaviour{moved("renewal"): once}, remembered: time.Hour},
	"AmpbridgeSidecarStuck":    {series: map[string]behaviour{`ampbridge_loop_idle_seconds{` + ofPod + `}`: gauge(90)}},
	"AmpbridgeGapGrows":        {series: map[string]behaviour{`ampbridge_gap_seconds{` + ofPod + `,destination="central"}`: counter(60)}},
	"AmpbridgeSamplesRefused": {
		series: map[string]behaviour{`prometheus_remote_storage_samples_failed_total{` + ofQueue + `}`: counter(6000)},
	},
	"AmpbridgeLagGrows": {
		series: map[string]behaviour{`prometheus_remote_storage_queue_highest_sent_timestamp_seconds{` + ofQueue + `}`: stopped},
		slow:   6 * time.Minute,
	},
}

// Each alert fires when its fault is there for long enough, and no other does; it ends
// with the fault.
func TestEachAlertFires(t *testing.T) {
	var tests []engineTest
	for _, r := range alertRules(t) {
		f, known := faults[r.Alert]
		if !known {
			t.Errorf("%s: no fault is played", r.Alert)
			continue
		}
		pending, err := time.ParseDuration(orZero(r.For))
		testkit.Must(t, err)
		// A rate over five minutes takes them.
		fires := faultBegins*time.Minute + f.slow + pending + 6*time.Minute
		ends := fires + time.Minute
		over := ends + f.remembered + 16*time.Minute
		test := engineTest{Name: r.Alert, Interval: "1m", InputSeries: inputs(f.series, ends, over)}
		if pending > 0 {
			test.expect(faultBegins*time.Minute+pending-time.Minute, nil)
		}
		test.expect(fires, map[string]string{r.Alert: r.Labels["severity"]})
		test.expect(over, nil)
		tests = append(tests, test)
	}
	for alert := range faults {
		if !slices.ContainsFunc(alertRules(t), func(r alertRule) bool { return r.Alert == alert }) {
			t.Errorf("%s is no alert of the chart", alert)
		}
	}
	ruleEngine(t, tests)
}

// Other shapes of the same faults, and what only looks like one.
func TestAlertsTellFaultsApart(t *testing.T) {
	rate := func(series string, perMinute float64) map[string]behaviour {
		return map[string]behaviour{series: counter(perMinute)}
	}
	sent := `prometheus_remote_storage_queue_highest_sent_timestamp_seconds{` + ofQueue + `}`
	var tests []engineTest
	for name, tc := range map[string]struct {
		series map[string]behaviour
		want   map[string]string
	}{
		"AMP's 4xx":                       {rate(relayed("4xx"), 60), map[string]string{"AmpbridgeWritesRefused": "warning"}},
		"AMP's 5xx":                       {rate(relayed("5xx"), 60), map[string]string{"AmpbridgeWritesRefused": "warning"}},
		"the relay has no room":           {rate(refused("no_room"), 5), map[string]string{"AmpbridgeRelayRefuses": "warning"}},
		"no session has an alert already": {rate(refused("no_session"), 5), nil},
		"a move by a reload":              {map[string]behaviour{moved("reload"): once}, map[string]string{"AmpbridgeMovedToRelay": "warning"}},
		"a start by the relay":            {map[string]behaviour{moved("start"): once}, nil},
		"a lag that grows slowly":         {map[string]behaviour{sent: counter(30)}, map[string]string{"AmpbridgeLagGrows": "warning"}},
		"nothing was ever sent":           {map[string]behaviour{sent: gauge(0)}, map[string]string{"AmpbridgeLagGrows": "warning"}},
		"a lag that gets smaller": {map[string]behaviour{sent: func(minute int, _ float64) float64 {
			return float64(minute)*60 - 2000 + 20*float64(minute-faultBegins)
		}}, nil},
		"a block that was missing for a while": {map[string]behaviour{
			`ampbridge_gap_seconds{` + ofPod + `,destination="central"}`: gauge(100),
		}, nil},
		"a loop that edits a large configuration": {map[string]behaviour{`ampbridge_loop_idle_seconds{` + ofPod + `}`: gauge(12)}, nil},
		"a policy that the webhook refuses": {map[string]behaviour{
			`ampbridge_policy_last_load_success{` + ofWebhook + `}`: gauge(0),
		}, map[string]string{"AmpbridgePolicyRefused": "warning"}},
		"pods that have hung for a moment": {
			map[string]behaviour{audited("hanging"): gauge(1)}, map[string]string{"AmpbridgePodsHang": "warning"},
		},
	} {
		const asked = (faultBegins + 30) * time.Minute
		test := engineTest{Name: name, Interval: "1m", InputSeries: inputs(tc.series, asked, asked)}
		test.expect(asked, tc.want)
		tests = append(tests, test)
	}
	ruleEngine(t, tests)
}

// No alert fires, at any time, while nothing is wrong; nor while what happens every day
// does: programs restart, and a node is drained.
func TestNoAlertWithoutAFault(t *testing.T) {
	restarts := map[string]behaviour{}
	for series := range well() {
		if strings.Contains(series, "_total{") {
			rate := well()[series](0, 0)
			restarts[series] = func(minute int, before float64) float64 {
				if minute%20 == 0 {
					return 0
				}
				return before + rate
			}
		}
	}
	drained := func(minute int, _ float64) float64 {
		if minute%20 < 5 {
			return 0
		}
		return 1
	}
	never := func(scenarios map[string]map[string]behaviour, args ...string) {
		var tests []engineTest
		for name, series := range scenarios {
			const long = 75 * time.Minute
			test := engineTest{Name: name, Interval: "1m", InputSeries: inputs(series, long, long)}
			test.Expressions = []map[string]any{{"expr": `count_over_time(ALERTS{alertstate="firing"}[75m])`, "eval_time": "75m"}}
			tests = append(tests, test)
		}
		ruleEngine(t, tests, args...)
	}
	never(map[string]map[string]behaviour{
		"restarts":       restarts,
		"a drained node": {`up{` + ofWebhook + `}`: drained, `up{` + ofSync + `}`: drained},
	})
	// In the chart's other forms there are fewer alerts, and none about what is not there.
	for name, args := range map[string][]string{
		"a CronJob": {"--set", "sync.mode=cronJob"},
		"no sync":   {"--set", "sync.enabled=false", "--set", "policy.trust.manage=none", "--set", "certificates.mode=certManager"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, r := range alertRules(t, args...) {
				if slices.Contains([]string{"AmpbridgeSyncDown", "AmpbridgeSyncNoLeader", "AmpbridgePodsNotInjected"}, r.Alert) {
					t.Errorf("%s is about a process that is not there", r.Alert)
				}
			}
			never(map[string]map[string]behaviour{"nothing happens": nil}, args...)
		})
	}
}

// The CronJob's last success is one of kube-state-metrics.
func TestCronJobAlert(t *testing.T) {
	test := engineTest{Name: "a CronJob", Interval: "1m", InputSeries: inputs(map[string]behaviour{
		`kube_cronjob_status_last_successful_time{namespace="ampbridge-system",cronjob="ampbridge-sync"}`: gauge(1),
	}, 4*time.Hour, 4*time.Hour)}
	test.expect(3*time.Hour+45*time.Minute, map[string]string{"AmpbridgeSyncNotSucceeding": "warning"})
	ruleEngine(t, []engineTest{test}, "--set", "sync.mode=cronJob")
}

// engineTest is one test of `promtool test rules`.
type engineTest struct {
	Name        string              `json:"name"`
	Interval    string              `json:"interval"`
	InputSeries []map[string]string `json:"input_series"`
	Expressions []map[string]any    `json:"promql_expr_test"`
}

// expect has exactly these alerts, with their severities, fire at that time.
func (e *engineTest) expect(at time.Duration, alerts map[string]string) {
	samples := []map[string]any{}
	for name, severity := range alerts {
		samples = append(samples, map[string]any{"labels": fmt.Sprintf(`{alertname=%q,severity=%q}`, name, severity), "value": 1})
	}
	e.Expressions = append(e.Expressions, map[string]any{
		"expr":      `group by (alertname, severity) (ALERTS{alertstate="firing"})`,
		"eval_time": fmt.Sprintf("%dm", int(at.Minutes())), "exp_samples": samples,
	})
}

// inputs are the series of a system that is well, and of the fault while it lasts. A
// series that only the fault has is not there before and after it.
func inputs(fault map[string]behaviour, ends, last time.Duration) (list []map[string]string) {
	usual := well()
	series := map[string]bool{}
	for name := range usual {
		series[name] = true
	}
	for name := range fault {
		series[name] = true
	}
	for name := range series {
		value := 0.0
		var values []string
		for minute := range int(last.Minutes()) + 1 {
			b := usual[name]
			if f := fault[name]; f != nil && minute >= faultBegins && minute <= int(ends.Minutes()) {
				b = f
			}
			if b == nil {
				values = append(values, "_")
				continue
			}
			value = b(minute, value)
			values = append(values, fmt.Sprint(value))
		}
		list = append(list, map[string]string{"series": name, "values": strings.Join(values, " ")})
	}
	return list
}

func orZero(duration string) string {
	if duration == "" {
		return "0s"
	}
	return duration
}

// ruleEngine runs the tests in Prometheus's own rule engine, by its own clock.
func ruleEngine(t *testing.T, tests []engineTest, args ...string) {
	t.Helper()
	dir := t.TempDir()
	testkit.WriteFile(t, filepath.Join(dir, "rules.yml"), ruleFile(t, args...))
	text, err := yaml.Marshal(map[string]any{"rule_files": []string{"rules.yml"}, "evaluation_interval": "1m", "tests": tests})
	testkit.Must(t, err)
	testkit.WriteFile(t, filepath.Join(dir, "tests.yml"), string(text))
	testkit.Exec(t, tools.Path(t, "promtool"), "test", "rules", filepath.Join(dir, "tests.yml"))
}
