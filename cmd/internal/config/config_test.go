package config

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// command runs the command with the test policy and arguments.
func command(stdin string, args ...string) (stdout, stderr string, err error) {
	cmd := New()
	var out, errs bytes.Buffer
	cmd.SetArgs(append([]string{"--policy", "testdata/policy.yaml"}, args...))
	cmd.SetIn(strings.NewReader(stdin))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	err = cmd.Execute()
	return out.String(), errs.String(), err
}

func text(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestVersion: fields that not every Prometheus knows need its version.
func TestVersion(t *testing.T) {
	const histograms, age = "send_native_histograms: true", "sample_age_limit: 30m"
	for version, want := range map[string]struct{ histograms, age bool }{"": {}, "2.42.0+ds": {histograms: true}, "v3.1.0": {true, true}} {
		stdout, stderr, err := command("", "-o", "block", "-n", "newer", "--service-account", "prometheus", "--prometheus-version", version)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(stdout, histograms) != want.histograms || strings.Contains(stdout, age) != want.age {
			t.Errorf("%q:\n%s", version, stdout)
		}
		if told := strings.Contains(stderr, "newer does without queue_config.sample_age_limit, which needs Prometheus 2.52"); told == want.age {
			t.Errorf("%q: stderr %q", version, stderr)
		}
	}
	if _, _, err := command("", "-o", "block", "-n", "newer", "--service-account", "prometheus", "--prometheus-version", "new"); err == nil {
		t.Error("a version that is none is taken")
	}
}

func TestOutput(t *testing.T) {
	for _, c := range []struct {
		want, wantStderr string
		args             []string
	}{
		{"full.want.yml", "backup is left out: ", []string{"-f", "testdata/prometheus.in.yml", "-n", "monitoring", "--service-account", "prometheus"}},
		{"block.want.yml", "", []string{"-o", "block", "-n", "monitoring", "--service-account", "prometheus"}},
		{"replica.want.yml", "", []string{"-o", "block", "-n", "pair", "--service-account", "prometheus", "--pod", "prometheus-0"}},
	} {
		t.Run(c.want, func(t *testing.T) {
			stdout, stderr, err := command("", c.args...)
			if err != nil {
				t.Fatal(err)
			}
			testkit.Golden(t, "testdata/"+c.want, stdout)
			if !strings.HasPrefix(stderr, c.wantStderr) || (c.wantStderr == "") != (stderr == "") {
				t.Errorf("stderr %q, want %q", stderr, c.wantStderr)
			}
		})
	}
}

func TestGzippedInput(t *testing.T) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write([]byte(text(t, "prometheus.in.yml"))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	stdout, _, err := command(packed.String(), "-f", "-", "-n", "monitoring", "--service-account", "prometheus")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text(t, "full.want.yml"), stdout); diff != "" {
		t.Errorf("gzipped input gives something else (-plain +gzipped):\n%s", diff)
	}
}

func TestErrors(t *testing.T) {
	granted := []string{"-f", "-", "-n", "monitoring", "--service-account", "prometheus"}
	for _, c := range []struct {
		name, stdin string
		args        []string
		want        string
		usage       bool
	}{
		{"not granted", "", []string{"-f", "-", "-n", "other", "--service-account", "prometheus"}, "not granted: no grant of testdata/policy.yaml covers service account prometheus of namespace other", false},
		{"no configuration", "", []string{"-n", "monitoring", "--service-account", "prometheus"}, "-f", true},
		{"no namespace", "", []string{"-f", "-", "--service-account", "prometheus"}, "--namespace is missing", true},
		{"no pod for a replica label", "", []string{"-f", "-", "-n", "pair", "--service-account", "prometheus"}, "--pod", true},
		{"output", "", append(granted, "-o", "json"), `--output "json" is unknown`, true},
		{"not a configuration", "[]", granted, "-: ", false},
		{"broken gzip", "\x1f\x8bxxxxxxxxxxxxxxx", granted, "-: ", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, _, err := command(c.stdin, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || usage.Is(err) != c.usage || stdout != "" {
				t.Errorf("error %v (usage %t), output %q; want an error with %q", err, usage.Is(err), stdout, c.want)
			}
		})
	}
}
