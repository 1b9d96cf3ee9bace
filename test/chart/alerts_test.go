package chart

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// Alerts and dashboard ask for metrics that the code has.
func TestMetricsExist(t *testing.T) {
	exported := map[string]bool{}
	literal := regexp.MustCompile(`"(ampbridge_[a-z_]+)"`)
	for _, dir := range []string{"webhook", "cmd"} {
		testkit.Must(t, filepath.WalkDir(filepath.Join("../..", dir), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, match := range literal.FindAllSubmatch(text, -1) {
				exported[string(match[1])] = true
			}
			return err
		}))
	}
	if len(exported) < 20 {
		t.Fatalf("only %d metrics in the code: %v", len(exported), exported)
	}
	dashboard, err := os.ReadFile(filepath.Join(chartDir, "files", "dashboard.json"))
	testkit.Must(t, err)
	if !json.Valid(dashboard) {
		t.Error("the dashboard is not JSON")
	}
	alerts, _ := ruleFile(t)
	for from, text := range map[string]string{"the dashboard": string(dashboard), "the alerts": alerts} {
		asked := regexp.MustCompile(`ampbridge_[a-z_]+`).FindAllString(text, -1)
		if len(asked) < 10 {
			t.Errorf("%s has only %d metrics", from, len(asked))
		}
		for _, name := range asked {
			if !exported[strings.TrimSuffix(name, "_bucket")] {
				t.Errorf("%s asks for %s, which no code exports", from, name)
			}
		}
	}
}

// What the processes export, each on its own target: when all is well, and when
// nothing is.
const (
	webhookWell = `
ampbridge_certificate_expiry_timestamp_seconds %[1]d
ampbridge_certificate_trusted 1
ampbridge_policy_last_load_success 1
ampbridge_admission_decisions_total{resource="pod",decision="inject",reason="Granted"} 7
ampbridge_admission_decisions_total{resource="pod",decision="skip",reason="NotPrometheus"} 3
`
	syncWell = `
ampbridge_sync_leader 1
ampbridge_policy_last_load_success 1
ampbridge_sync_last_success_timestamp_seconds %[2]d
ampbridge_sync_refusals 0
ampbridge_audit_pods{finding="healthy"} 4
ampbridge_audit_pods{finding="missed"} 0
ampbridge_audit_pods{finding="outdated"} 0
ampbridge_audit_pods{finding="hanging"} 0
ampbridge_audit_pods{finding="stuck"} 0
ampbridge_audit_last_success_timestamp_seconds %[2]d
`
	webhookUnwell = `
ampbridge_certificate_expiry_timestamp_seconds %[2]d
ampbridge_certificate_trusted 0
ampbridge_policy_last_load_success 0
ampbridge_admission_decisions_total{resource="pod",decision="skip",reason="NotGranted"} 1
ampbridge_admission_decisions_total{resource="pod",decision="error",reason="LookupFailed"} 1
`
	syncUnwell = `
ampbridge_sync_leader 0
ampbridge_policy_last_load_success 1
ampbridge_sync_last_success_timestamp_seconds 0
ampbridge_sync_refusals 2
ampbridge_audit_pods{finding="missed"} 1
ampbridge_audit_pods{finding="stuck"} 1
ampbridge_audit_breaker_open{namespace="monitoring",kind="StatefulSet",name="prometheus-k8s"} 1
ampbridge_audit_last_success_timestamp_seconds 0
`
	sidecarWell = `
ampbridge_delivery{destination="central",delivery="relay"} 1
ampbridge_session_valid{destination="central"} 1
ampbridge_session_not_taken{destination="central"} 0
ampbridge_moves_total{destination="central",reason="renewal"} 0
ampbridge_moves_total{destination="central",reason="reload"} 0
ampbridge_moves_total{destination="central",reason="start"} 1
ampbridge_relay_requests_total{destination="central",status="2xx"} 1000
ampbridge_relay_requests_total{destination="central",status="4xx"} 0
ampbridge_relay_requests_total{destination="central",status="429"} 0
ampbridge_relay_requests_total{destination="central",status="5xx"} 0
ampbridge_relay_refused_total{destination="central",reason="unreachable"} 0
ampbridge_relay_refused_total{destination="central",reason="no_session"} 0
ampbridge_cpu_throttled_seconds_total 0
`
	sidecarUnwell = `
ampbridge_delivery{destination="central",delivery="relay"} 1
ampbridge_session_valid{destination="central"} 0
ampbridge_session_not_taken{destination="central"} 1
ampbridge_moves_total{destination="central",reason="renewal"} 1
ampbridge_moves_total{destination="central",reason="reload"} 0
ampbridge_moves_total{destination="central",reason="start"} 1
ampbridge_relay_requests_total{destination="central",status="2xx"} 1100
ampbridge_relay_requests_total{destination="central",status="4xx"} 90
ampbridge_relay_requests_total{destination="central",status="429"} 0
ampbridge_relay_requests_total{destination="central",status="5xx"} 0
ampbridge_relay_refused_total{destination="central",reason="unreachable"} 9
ampbridge_relay_refused_total{destination="central",reason="no_session"} 9
ampbridge_cpu_throttled_seconds_total 900
`
)

// overTime are alerts on rates: they stay active for as long as the rate looks back.
var overTime = []string{"AmpbridgeMovedToRelay", "AmpbridgeRelayRefuses", "AmpbridgeRelayThrottled", "AmpbridgeWritesRefused"}

// The alerts in a real Prometheus, which scrapes as the ServiceMonitor says.
func TestAlerts(t *testing.T) {
	rules, all := ruleFile(t)
	var webhook, sync, sidecar atomic.Value
	set := func(w, s, c string) {
		far, soon := time.Now().Add(60*24*time.Hour).Unix(), time.Now().Add(time.Minute).Unix()
		for target, text := range map[*atomic.Value]string{&webhook: w, &sync: s, &sidecar: c} {
			target.Store(strings.NewReplacer("%[1]d", fmt.Sprint(far), "%[2]d", fmt.Sprint(soon)).Replace(text))
		}
	}
	set(webhookWell, syncWell, sidecarWell)
	server := startPrometheus(t, rules, map[string]*atomic.Value{
		"ampbridge-webhook": &webhook, "ampbridge-sync": &sync, "sidecar": &sidecar,
	})

	testkit.EventuallyEmpty(t, func() string { return scraped(t, server, 3) })
	if active := alerts(t, server); len(active) > 0 {
		t.Errorf("all is well, but there are alerts: %v", active)
	}
	t.Run("the dashboard's questions", func(t *testing.T) { testDashboard(t, server) })
	set(webhookUnwell, syncUnwell, sidecarUnwell)
	down := []string{"AmpbridgeSyncDown", "AmpbridgeWebhookDown"}
	want := slices.DeleteFunc(slices.Clone(all), func(name string) bool { return slices.Contains(down, name) })
	var active map[string]string
	testkit.EventuallyEmpty(t, func() string {
		active = alerts(t, server)
		return cmp.Diff(want, slices.Sorted(maps.Keys(active)))
	})
	for name, annotations := range active {
		if strings.Contains(annotations, "<no value>") || strings.Contains(annotations, "error expanding") {
			t.Errorf("%s: %s", name, annotations)
		}
	}
	if text := active["AmpbridgeCircuitOpen"]; !strings.Contains(text, "StatefulSet prometheus-k8s of namespace monitoring") {
		t.Errorf("AmpbridgeCircuitOpen does not name the workload: %s", text)
	}
	set("", "", "")
	testkit.EventuallyEmpty(t, func() string {
		left := slices.DeleteFunc(slices.Sorted(maps.Keys(alerts(t, server))), func(name string) bool {
			return slices.Contains(overTime, name)
		})
		return cmp.Diff(down, left)
	})
}

// testDashboard asks what the dashboard asks, of a Prometheus where all is well.
func testDashboard(t *testing.T, server string) {
	text, err := os.ReadFile(filepath.Join(chartDir, "files", "dashboard.json"))
	testkit.Must(t, err)
	var dashboard struct {
		Panels []struct {
			Title, Type string
			Targets     []struct{ Expr string }
		}
	}
	testkit.Must(t, json.Unmarshal(text, &dashboard))
	asked := 0
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expression := strings.NewReplacer("$namespace", namespace, "$__rate_interval", "1m").Replace(target.Expr)
			var answer struct {
				Data struct{ Result []struct{ Value []any } }
			}
			if err := get(t, server+"/api/v1/query?query="+url.QueryEscape(expression), &answer); err != nil {
				t.Errorf("%s: %s: %v", panel.Title, expression, err)
			}
			// The figures at the top have an answer as soon as anything runs.
			if panel.Type == "stat" && len(answer.Data.Result) != 1 {
				t.Errorf("%s: %s: %v", panel.Title, expression, answer.Data.Result)
			}
			asked++
		}
	}
	if asked < 15 {
		t.Errorf("only %d questions", asked)
	}
}

// In the chart's other forms there are fewer alerts, and none without a reason.
func TestAlertsOfOtherForms(t *testing.T) {
	var content atomic.Value
	content.Store(strings.ReplaceAll(webhookWell, "%[1]d", fmt.Sprint(time.Now().Add(60*24*time.Hour).Unix())) +
		fmt.Sprintf("kube_cronjob_status_last_successful_time{cronjob=\"ampbridge-sync\"} %d\n", time.Now().Unix()))
	for name, args := range map[string][]string{
		"a CronJob": {"--set", "sync.mode=cronJob"},
		"no sync":   {"--set", "sync.enabled=false", "--set", "policy.trust.manage=none", "--set", "certificates.mode=certManager"},
	} {
		t.Run(name, func(t *testing.T) {
			rules, all := ruleFile(t, args...)
			if slices.Contains(all, "AmpbridgeSyncDown") || slices.Contains(all, "AmpbridgeSyncNoLeader") ||
				slices.Contains(all, "AmpbridgePodsNotInjected") {
				t.Errorf("alerts about a process that is not there: %v", all)
			}
			server := startPrometheus(t, rules, map[string]*atomic.Value{"ampbridge-webhook": &content, "kube-state-metrics": &content})
			testkit.EventuallyEmpty(t, func() string { return scraped(t, server, 2) })
			if active := alerts(t, server); len(active) > 0 {
				t.Errorf("all is well, but there are alerts: %v", active)
			}
		})
	}
}

// Each alert's runbook is a heading of the documentation.
func TestRunbooksExist(t *testing.T) {
	rules, _ := ruleFile(t)
	link := regexp.MustCompile(`runbook_url: https://github.com/ampbridge/ampbridge/blob/main/(docs/[a-z.]+)#(\S+)`)
	links := link.FindAllStringSubmatch(rules, -1)
	if len(links) < 6 || len(links) != strings.Count(rules, "runbook_url") {
		t.Fatalf("runbooks: %v", links)
	}
	for _, link := range links {
		text, err := os.ReadFile(filepath.Join("../..", link[1]))
		testkit.Must(t, err)
		if !regexp.MustCompile(`(?mi)^#+ ` + link[2] + `$`).Match(text) {
			t.Errorf("%s has no heading %s", link[1], link[2])
		}
	}
}

// ruleFile is the chart's PrometheusRule as Prometheus reads it, and the names of
// its alerts.
func ruleFile(t *testing.T, args ...string) (text string, names []string) {
	t.Helper()
	rule := render(t, append([]string{"-f", everything}, args...)...).get(t, "PrometheusRule", "ampbridge")
	content, err := yaml.Marshal(rule.Object["spec"])
	testkit.Must(t, err)
	for _, match := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(string(content), -1) {
		names = append(names, match[1])
	}
	slices.Sort(names)
	if len(names) < 5 {
		t.Fatalf("only %d alerts", len(names))
	}
	return string(content), names
}

func startPrometheus(t *testing.T, rules string, targets map[string]*atomic.Value) (server string) {
	t.Helper()
	dir := t.TempDir()
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "rules.yml"), []byte(rules), 0o600))
	config := "global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}\nrule_files: [rules.yml]\nscrape_configs:\n"
	for job, content := range targets {
		exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			text := content.Load().(string)
			if text == "" {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = fmt.Fprint(w, text)
		}))
		t.Cleanup(exporter.Close)
		config += fmt.Sprintf(
			"- {job_name: %s, static_configs: [{targets: [%q], labels: {namespace: %s, pod: %s-0}}]}\n",
			job,
			exporter.Listener.Addr(),
			namespace,
			job,
		)
	}
	testkit.Must(t, os.WriteFile(filepath.Join(dir, "prometheus.yml"), []byte(config), 0o600))
	addr := testkit.FreeAddr(t)
	run(t, tools.Path(t, "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=warn")
	return "http://" + addr
}

// scraped complains until all targets are scraped and all rules evaluated.
func scraped(t *testing.T, server string, count int) string {
	t.Helper()
	var targets struct {
		Data struct {
			ActiveTargets []struct{ Health, LastError string }
		}
	}
	var groups struct {
		Data struct {
			Groups []struct {
				Rules []struct{ Name, Health, LastError string }
			}
		}
	}
	if err := get(t, server+"/api/v1/targets", &targets); err != nil {
		return err.Error()
	}
	up := 0
	for _, target := range targets.Data.ActiveTargets {
		if target.Health == "up" {
			up++
		}
	}
	testkit.Must(t, get(t, server+"/api/v1/rules", &groups))
	if len(groups.Data.Groups) != 1 || up != count {
		return fmt.Sprintf("%+v %+v", targets, groups)
	}
	for _, rule := range groups.Data.Groups[0].Rules {
		if rule.Health != "ok" {
			return fmt.Sprintf("rule %s: %s %s", rule.Name, rule.Health, rule.LastError)
		}
	}
	// What was absent before the first scrape is an alert until the next evaluation.
	if active := alerts(t, server); active["AmpbridgeWebhookDown"] != "" || active["AmpbridgeSyncDown"] != "" {
		return fmt.Sprint(active)
	}
	return ""
}

// alerts are the active ones, pending or firing, with their annotations.
func alerts(t *testing.T, server string) map[string]string {
	t.Helper()
	var answer struct {
		Data struct {
			Alerts []struct{ Labels, Annotations map[string]string }
		}
	}
	testkit.Must(t, get(t, server+"/api/v1/alerts", &answer))
	active := map[string]string{}
	for _, a := range answer.Data.Alerts {
		active[a.Labels["alertname"]] = fmt.Sprint(a.Annotations)
	}
	return active
}

func get(t *testing.T, url string, v any) error {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	testkit.Must(t, err)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(v)
}
