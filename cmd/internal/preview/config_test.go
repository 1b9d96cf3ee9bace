package preview_test

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// What is said of each delivery: of the policy, and of the command line.
func TestConfigNamesTheDelivery(t *testing.T) {
	for _, c := range []struct{ namespace, delivery, want, not string }{
		{"monitoring", "", "central: delivery auto: this is the block for a pod that gets sigv4", "is ignored"},
		{"monitoring", "relay", "backup: relay: port 0 is a placeholder for", "auto"},
		{"monitoring", "sigv4", "", "central"},
		{"chosen", "", "relayed: relay: port 0", "signed"},
		{"chosen", "relay", "signed: --delivery relay is ignored, because the policy sets sigv4", "auto"},
	} {
		_, stderr, err := config(t, "", "-o", "block", "-n", c.namespace, "--service-account", "prometheus", "--delivery", c.delivery)
		if err != nil || !strings.Contains(stderr, c.want) || strings.Contains(stderr, c.not) {
			t.Errorf("%s %q: %v, stderr %q", c.namespace, c.delivery, err, stderr)
		}
	}
}

// A block that is left out is called by its destination, with the relay too.
func TestLeftOutByRelay(t *testing.T) {
	_, stderr, err := config(t, "", "-f", "testdata/config/prometheus.in.yml", "-n", "monitoring", "--service-account", "prometheus",
		"--delivery", "relay")
	if err != nil || !strings.Contains(stderr, "\nbackup is left out: the configuration's own remote_write ") ||
		!strings.Contains(stderr, "writes to this workspace already: remove that entry, and ampbridge writes there\n") {
		t.Errorf("%v, stderr %q", err, stderr)
	}
}

// Fields that not every Prometheus knows need its version.
func TestFieldsNeedAKnownVersion(t *testing.T) {
	newer := func(version string) (stdout, stderr string, err *failure) {
		return config(t, "", "-o", "block", "-n", "newer", "--service-account", "prometheus", "--prometheus-version", version)
	}
	const histograms, age = "send_native_histograms: true", "sample_age_limit: 30m"
	for version, want := range map[string]struct{ histograms, age bool }{"": {}, "2.42.0+ds": {histograms: true}, "v3.1.0": {true, true}} {
		stdout, stderr, err := newer(version)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(stdout, histograms) != want.histograms || strings.Contains(stdout, age) != want.age {
			t.Errorf("%q:\n%s", version, stdout)
		}
		if told := strings.Contains(
			stderr,
			"newer has no queue_config.sample_age_limit, which needs Prometheus 2.50",
		); told == want.age {
			t.Errorf("%q: stderr %q", version, stderr)
		}
	}
	if _, _, err := newer("new"); err == nil {
		t.Error("a version that is none is taken")
	}
}

func TestConfigOutput(t *testing.T) {
	for _, c := range []struct {
		want, wantStderr string
		args             []string
	}{
		{"full.want.yml", "central: delivery auto: ", []string{"-f", "testdata/config/prometheus.in.yml", "-n", "monitoring", "--service-account",
			"prometheus"}},
		{"block.want.yml", "", []string{"-o", "block", "-n", "monitoring", "--service-account", "prometheus", "--delivery", "sigv4"}},
		{"relay.want.yml", "central: relay: port 0", []string{"-o", "block", "-n", "monitoring", "--service-account", "prometheus",
			"--delivery", "relay", "--prometheus-version", "3.1.0"}},
		{"chosen.want.yml", "relayed: --delivery sigv4 is ignored", []string{"-o", "block", "-n", "chosen", "--service-account",
			"prometheus", "--delivery", "sigv4", "--prometheus-version", "2.42.0"}},
		{"replica.want.yml", "central: delivery auto: ",
			[]string{"-o", "block", "-n", "pair", "--service-account", "prometheus", "--pod", "prometheus-0",
				"--controller", "prometheus"}},
	} {
		t.Run(c.want, func(t *testing.T) {
			stdout, stderr, err := config(t, "", c.args...)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "config/"+c.want, stdout)
			if !strings.HasPrefix(stderr, c.wantStderr) || (c.wantStderr == "") != (stderr == "") {
				t.Errorf("stderr %q, want %q", stderr, c.wantStderr)
			}
		})
	}
}

func TestGzippedInput(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(testkit.ReadFile(t, "testdata/config/prometheus.in.yml"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	stdout, _, err := config(t, packed.String(), "-f", "-", "-n", "monitoring", "--service-account", "prometheus")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testkit.ReadFile(t, "testdata/config/full.want.yml"), stdout); diff != "" {
		t.Errorf("gzipped input gives something else (-plain +gzipped):\n%s", diff)
	}
}

func TestConfigErrors(t *testing.T) {
	granted := []string{"-f", "-", "-n", "monitoring", "--service-account", "prometheus"}
	for _, c := range []struct {
		name, stdin string
		args        []string
		want        string
		usage       bool
	}{
		{"not granted", "", []string{"-f", "-", "-n", "other", "--service-account", "prometheus"}, "not granted: no grant of " +
			"testdata/config/policy.yaml covers service account prometheus of namespace other", false},
		{"no configuration", "", []string{"-n", "monitoring", "--service-account", "prometheus"}, "-f", true},
		{"no namespace", "", []string{"-f", "-", "--service-account", "prometheus"}, "--namespace is missing", true},
		{"a misspelt namespace", "", []string{"-f", "-", "-n", "monitorin", "--service-account", "prometheus"},
			"of namespace monitorin: grants[1] names the namespace monitoring\n", false},
		{"a misspelt service account", "", []string{"-o", "block", "-n", "monitoring", "--service-account", "prometheus-"},
			"of namespace monitoring: grants[1] names the service account prometheus\n", false},
		{"a subject", "", []string{"-f", "-", "--service-account", "system:serviceaccount:monitoring:prometheus"},
			"has the namespace in it: write -n monitoring --service-account prometheus\n", true},
		{"a service account with its namespace", "", []string{"-f", "-", "-n", "monitoring", "--service-account", "monitoring/prometheus"},
			"has the namespace in it: write -n monitoring --service-account prometheus\n", true},
		{"half a subject", "", []string{"-f", "-", "--service-account", "monitoring:prometheus"},
			`--service-account "monitoring:prometheus" is not a name: write the name alone, such as prometheus`, true},
		{"no pod for a replica label", "", []string{"-f", "-", "-n", "pair", "--service-account", "prometheus", "--controller", "p"},
			"set --pod and --controller, such as --pod prometheus-k8s-0", true},
		{"no controller for a replica label", "", []string{"-o", "block", "-n", "pair", "--service-account", "prometheus", "--pod", "p-0"},
			"set --pod and --controller, such as --pod prometheus-k8s-0", true},
		{"delivery", "", append(granted, "--delivery", "proxy"), `--delivery "proxy" is unknown`, true},
		{"output", "", append(granted, "-o", "json"), `--output "json" is unknown`, true},
		{"not a configuration", "[]", granted, "-: ", false},
		{"a pod", "apiVersion: v1\nkind: Pod\n", granted, "-: it is a Kubernetes object (v1, Pod): config takes", false},
		{"a ConfigMap as JSON", `{"apiVersion":"v1","kind":"ConfigMap","data":{}}`, granted, "(v1, ConfigMap)", false},
		{"a StatefulSet", "kind: StatefulSet\napiVersion: apps/v1\n", granted, "(apps/v1, StatefulSet)", false},
		{"a tab", "global:\n\tscrape_interval: 1m\n", granted, "-: ", false},
		{"a folder", "", []string{"-f", ".", "-n", "monitoring", "--service-account", "prometheus"}, "directory", false},
		{"broken gzip", "\x1f\x8bxxxxxxxxxxxxxxx", granted, "-: ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, _, err := config(t, c.stdin, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || err.usage() != c.usage || stdout != "" {
				t.Errorf("error %v (usage %t), output %q; want an error with %q", err, err.usage(), stdout, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "delivery auto") {
				t.Errorf("a note stands before the error: %s", err)
			}
		})
	}
}

// A pod without a controller has a group without one.
func TestNoController(t *testing.T) {
	stdout, _, err := config(t, "", "-o", "block", "-n", "pair", "--service-account", "prometheus", "--pod", "p", "--controller", "")
	if err != nil || !strings.Contains(stdout, "replacement: pair\n") {
		t.Errorf("%v\n%s", err, stdout)
	}
}

// TestEmptyConfiguration: an empty file is named, because Prometheus accepts it.
func TestEmptyConfiguration(t *testing.T) {
	for _, text := range []string{"", "\n", " \n\n"} {
		_, stderr, err := config(t, text, "-f", "-", "-n", "monitoring", "--service-account", "prometheus")
		if err != nil || !strings.Contains(stderr, "- is empty: config takes the Prometheus configuration") {
			t.Errorf("%q: %v, stderr %q", text, err, stderr)
		}
	}
}

// TestMemory: a configuration that a sidecar could not edit within the policy's limit is
// named, with the limit that is enough. What is printed stays the same.
func TestMemory(t *testing.T) {
	text := "rule_files:\n" + strings.Repeat("- a.yml\n", 1_000_000)
	stdout, stderr, err := config(t, text, "-f", "-", "-n", "monitoring", "--service-account", "prometheus")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(stderr, "the configuration (8.0 MB) needs about ") ||
		!strings.Contains(stderr, "set sidecar.resources.limits.memory to ") || !strings.Contains(stdout, "remote_write:") {
		t.Errorf("stderr %q", stderr)
	}
	for _, small := range []string{"rule_files:\n" + strings.Repeat("- a.yml\n", 1000), "a: " + strings.Repeat("x", 4e6) + "\n"} {
		if _, stderr, err := config(t, small, "-f", "-", "-n", "monitoring", "--service-account", "prometheus"); err != nil ||
			strings.Contains(stderr, "needs about") {
			t.Errorf("%.20q: %q, %v", small, stderr, err)
		}
	}
}
