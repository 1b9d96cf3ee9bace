package chart

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
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
	readDashboard(t)
	dashboard := chartFile(t, "files", "dashboard.json")
	alerts := ruleFile(t)
	for from, text := range map[string]string{"the dashboard": dashboard, "the alerts": alerts} {
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

// Each alert has a severity, a runbook that is a heading of the documentation, and texts.
func TestAlertsAreComplete(t *testing.T) {
	text := testkit.ReadFile(t, "../../docs/troubleshooting/runbook.md")
	headings := map[string]bool{}
	for _, heading := range regexp.MustCompile(`(?m)^#+ (\S+)$`).FindAllStringSubmatch(text, -1) {
		headings[strings.ToLower(heading[1])] = true
	}
	const book = "https://github.com/ampbridge/ampbridge/blob/main/docs/troubleshooting/runbook.md#"
	seen := map[string]bool{}
	for _, rules := range [][]alertRule{alertRules(t), alertRules(t, "--set", "sync.mode=cronJob")} {
		for _, r := range rules {
			seen[r.Alert] = true
			anchor, found := strings.CutPrefix(r.Annotations["runbook_url"], book)
			if !found || anchor != strings.ToLower(r.Alert) || !headings[anchor] {
				t.Errorf("%s: runbook %q is no heading of docs/troubleshooting/runbook.md with the alert's name", r.Alert, r.Annotations["runbook_url"])
			}
			if !slices.Contains([]string{"critical", "warning", "info"}, r.Labels["severity"]) {
				t.Errorf("%s: severity %q", r.Alert, r.Labels["severity"])
			}
			if r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%s: annotations %v", r.Alert, r.Annotations)
			}
		}
	}
	// Values and schema know the same alerts.
	values := readValues(t, filepath.Join(chartDir, "values.yaml"))["prometheusRule"].(map[string]any)["alerts"].(map[string]any)
	schema := readSchema(t).Properties["prometheusRule"].Properties["alerts"].Properties
	if diff := cmp.Diff(slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(values))); diff != "" {
		t.Errorf("-alerts +values.yaml:\n%s", diff)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(seen)), slices.Sorted(maps.Keys(schema))); diff != "" {
		t.Errorf("-alerts +values.schema.json:\n%s", diff)
	}
	for _, r := range alertRules(t) {
		if got := values[r.Alert].(map[string]any)["severity"]; got != r.Labels["severity"] {
			t.Errorf("%s: severity %v in values.yaml, %s in the rule", r.Alert, got, r.Labels["severity"])
		}
	}
}

// Each alert has a switch, and its severity can be changed.
func TestAlertsAreSwitched(t *testing.T) {
	all := alertRules(t)
	for _, off := range all {
		t.Run(off.Alert, func(t *testing.T) {
			t.Parallel()
			for _, r := range alertRules(t, "--set", "prometheusRule.alerts."+off.Alert+".enabled=false") {
				if r.Alert == off.Alert {
					t.Error("it is still there")
				}
			}
		})
	}
	if got := alertRules(t, "--set", "prometheusRule.alerts.AmpbridgeNoSession.enabled=false"); len(got) != len(all)-1 {
		t.Errorf("%d alerts without one of %d", len(got), len(all))
	}
	for _, r := range alertRules(t, "--set", "prometheusRule.alerts.AmpbridgeNoSession.severity=info") {
		if want := "info"; r.Alert == "AmpbridgeNoSession" && r.Labels["severity"] != want {
			t.Errorf("severity %q, want %q", r.Labels["severity"], want)
		}
	}
	// Values of an older chart know no alerts: all are on.
	if got := alertRules(t, "--set", "prometheusRule.alerts=null"); len(got) != len(all) {
		t.Errorf("%d alerts, want %d", len(got), len(all))
	}
	for _, wrong := range []string{"AmpbridgeNoSesion.enabled=false", "AmpbridgeNoSession.enabled=no", "AmpbridgeNoSession.severity=page"} {
		_, stderr, err := helm(t, "template", release, chartDir, "-f", everything, "--set", "prometheusRule.alerts."+wrong)
		if name, _, _ := strings.Cut(wrong, "."); err == nil || !strings.Contains(stderr, name) {
			t.Errorf("%s: %v: %s", wrong, err, stderr)
		}
	}
}

// The PodMonitor finds sidecars by the name of their port, in all namespaces or in some.
func TestPodMonitor(t *testing.T) {
	spec := func(args ...string) map[string]any {
		all := render(t, append([]string{"-f", minimal, "--set", "podMonitor.enabled=true"}, args...)...)
		return all.get(t, "PodMonitor", "ampbridge-sidecars").Object["spec"].(map[string]any)
	}
	want := map[string]any{
		"namespaceSelector":   map[string]any{"any": true},
		"selector":            map[string]any{},
		"podMetricsEndpoints": []any{map[string]any{"port": sidecarconfig.MetricsPortName}},
	}
	if diff := cmp.Diff(want, spec()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	want = map[string]any{
		"namespaceSelector":   map[string]any{"matchNames": []any{"monitoring"}},
		"selector":            map[string]any{"matchLabels": map[string]any{"app": "prometheus"}},
		"podMetricsEndpoints": []any{map[string]any{"port": sidecarconfig.MetricsPortName, "interval": "1m"}},
	}
	got := spec("--set", "podMonitor.namespaces={monitoring},podMonitor.selector.matchLabels.app=prometheus", "--set",
		"podMonitor.interval=1m")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// alertRule is one alert of the chart.
type alertRule struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alertRules(t *testing.T, args ...string) (rules []alertRule) {
	t.Helper()
	text := ruleFile(t, args...)
	var file struct{ Groups []struct{ Rules []alertRule } }
	testkit.Must(t, yaml.Unmarshal([]byte(text), &file))
	for _, group := range file.Groups {
		rules = append(rules, group.Rules...)
	}
	return rules
}

// ruleFile is the chart's PrometheusRule as Prometheus reads it.
func ruleFile(t *testing.T, args ...string) string {
	t.Helper()
	rule := render(t, append([]string{"-f", everything}, args...)...).get(t, "PrometheusRule", "ampbridge")
	content, err := yaml.Marshal(rule.Object["spec"])
	testkit.Must(t, err)
	if alerts := strings.Count(string(content), "alert: "); alerts < 5 {
		t.Fatalf("only %d alerts", alerts)
	}
	return string(content)
}
