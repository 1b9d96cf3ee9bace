package preview_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/cmd/internal/preview"
)

func snippet(t *testing.T, output string, args ...string) (stdout, stderr string, err *failure) {
	t.Helper()
	return command(t, "", append([]string{"config", "--policy", "testdata/snippets/policy.yaml", "-o", output}, args...)...)
}

// Each golden is also read by the real program or its types: test/promload for Prometheus
// and prometheus-operator.
func TestSnippets(t *testing.T) {
	for _, output := range preview.Outputs() {
		if !preview.IsSnippet(output) {
			continue
		}
		for account, destination := range map[string]string{"collector": "", "several": "second", "relayed": ""} {
			relays := slices.Contains([]string{"opentelemetry", "vmagent", "alloy"}, output)
			if output == preview.Grafana && account != "collector" || account == "relayed" && !relays ||
				account == "several" && output == preview.VMAgent {
				continue // there are errors, below
			}
			stdout, stderr, err := snippet(t, output, "-n", "observability", "--service-account", account, "--destination", destination,
				"--prometheus-version", "3.1.0")
			if err != nil || stderr != "" {
				t.Errorf("%s for %s: %v, stderr %q", output, account, err, stderr)
			}
			golden(t, "snippets/"+output+"."+account+".txt", stdout)
		}
	}
}

func TestSnippetErrors(t *testing.T) {
	for _, c := range []struct {
		output, args, want string
		usage              bool
	}{
		{"graphana", "-n grafana --service-account grafana", `--output "graphana" is unknown: write full, block, ` +
			`prometheus-operator, `, true},
		{"grafana", "-n monitoring --service-account prometheus", "-o grafana needs access: [query], and no destination that is granted to " +
			"service account prometheus of namespace monitoring has it (central): add query to destinations[].access", false},
		{"vmagent", "-n grafana --service-account grafana", "-o vmagent needs access: [write], and no destination that is granted", false},
		{"alloy", "-n observability --service-account collector --destination reader", "-o alloy needs access: [write], and " +
			"destination reader", false},
		{"alloy", "-n observability --service-account several", "has central, second: name one with --destination", true},
		{"alloy", "-n observability --service-account several --destination third", `--destination "third": it is not granted`, false},
		{"alloy", "-n observability --service-account stranger", "not granted: no grant of", false},
		{"grafana", "-n grafana --service-account grafana --delivery relay", "-o grafana has no form for --delivery relay", true},
		{"grafana", "-n grafana --service-account grafana -f x.yml", "-f is for -o full", true},
		{"block", "-n monitoring --service-account prometheus --destination central", "--destination is for snippets", true},
		{"block", "-n grafana --service-account grafana", "do not have mode prometheus, so there is no configuration to edit: write a " +
			"snippet for the program with -o (prometheus-operator, prometheus-chart, kube-prometheus-stack, opentelemetry, vmagent, alloy); " +
			"docs/guides/collectors.md has Thanos Ruler and others", false},
		{"prometheus-operator", "-n monitoring --service-account prometheus", "has mode prometheus: the sidecar adds the block by itself", false},
		{"vmagent", "-n monitoring --service-account prometheus --delivery relay", "for a snippet, the grant needs mode: relay\n", false},
		{"kube-prometheus-stack", "-n monitoring --service-account prometheus --destination central", "for a snippet, the grant needs " +
			"mode: identity\n", false},
		{"vmagent", "-n observability --service-account several --destination second", "vmagent reads no AWS configuration", false},
	} {
		stdout, _, err := snippet(t, c.output, strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), c.want) || err.usage() != c.usage || stdout != "" {
			t.Errorf("-o %s %s: %v (usage %t), output %q; want %q", c.output, c.args, err, err.usage(), stdout, c.want)
		}
	}
}

// What the grant lacks is said on stderr.
func TestSnippetsNameTheMode(t *testing.T) {
	for _, c := range []struct{ output, args, want string }{
		{"prometheus-chart", "-n observability --service-account relayed", "second: the snippet needs mode: identity in the grant of " +
			"service account relayed of namespace observability\n"},
		{"vmagent", "-n observability --service-account collector --delivery relay", "central: the snippet needs mode: relay in the grant"},
	} {
		stdout, stderr, err := snippet(t, c.output, strings.Fields(c.args)...)
		if err != nil || !strings.Contains(stderr, c.want) || stdout == "" {
			t.Errorf("-o %s %s: %v, stderr %q, want %q", c.output, c.args, err, stderr, c.want)
		}
	}
}
