package webhook_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// In the volume of a ConfigMap, a change replaces a symbolic link to a directory.
func TestPolicyFollowsAConfigMap(t *testing.T) {
	good := readFile(t, "testdata/policy.yaml")
	paused := append(bytes.Clone(good), "paused: true\n"...)
	broken := append(bytes.Clone(good), "pausd: true\nsession: {duration: 1s}\n"...)

	dir := t.TempDir()
	publish(t, dir, broken)
	registry, log := prometheus.NewRegistry(), &testkit.Buffer{}
	source := webhook.WatchPolicy(
		filepath.Join(dir, "policy.yaml"),
		nil,
		webhook.NewMetrics(registry),
		slog.New(slog.NewJSONHandler(log, nil)),
	)
	if source.Current() != nil || source.Err() == nil {
		t.Fatalf("a broken first version: got %v, %v; want no policy and an error", source.Current(), source.Err())
	}
	wantMetric(t, registry, "ampbridge_policy_last_load_success", 0)
	go source.Follow(t.Context())

	publish(t, dir, good)
	testkit.Eventually(t, "the good version is in force", func() bool { return source.Current() != nil && source.Err() == nil })
	first := source.Current()
	wantMetric(t, registry, "ampbridge_policy_last_load_success", 1)

	publish(t, dir, broken)
	testkit.Eventually(t, "the broken version is refused", func() bool { return source.Err() != nil })
	if source.Current() != first {
		t.Error("the last good version is no longer in force")
	}
	for _, want := range []string{"pausd", "session.duration"} {
		if !strings.Contains(source.Err().Error(), want) {
			t.Errorf("the error lacks %s: %v", want, source.Err())
		}
	}
	wantMetric(t, registry, "ampbridge_policy_last_load_success", 0)
	wantMetric(t, registry, "ampbridge_policy_load_errors_total", 2)

	publish(t, dir, paused)
	testkit.Eventually(t, "the next good version is in force", func() bool { return source.Current().Paused })
	wantMetric(t, registry, "ampbridge_policy_last_load_success", 1)
	if n, err := testutil.GatherAndCount(registry, "ampbridge_policy_info"); err != nil || n != 1 {
		t.Errorf("ampbridge_policy_info: got %d series, %v; want that of the policy in force", n, err)
	}
	// The watcher read the broken version twice, and it has two mistakes.
	if n := strings.Count(log.String(), "policy refused"); n != 4 {
		t.Errorf("refusals logged: got %d, want each mistake once a version: %s", n, log)
	}
}

func TestPolicySurvivesAMissingFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	log := &testkit.Buffer{}
	source := webhook.WatchPolicy(file, nil, webhook.NewMetrics(prometheus.NewRegistry()), slog.New(slog.NewJSONHandler(log, nil)))
	if source.Err() == nil {
		t.Fatal("a missing file: got no error")
	}
	go source.Follow(t.Context())
	testkit.WriteFile(t, file, testkit.ReadFile(t, "testdata/policy.yaml"))
	testkit.Eventually(t, "the file is loaded", func() bool { return source.Current() != nil })
	testkit.Must(t, os.Remove(file))
	testkit.Eventually(t, "its loss is noticed", func() bool { return source.Err() != nil })
	if source.Current() == nil {
		t.Error("the policy went with its file")
	}
}

// publish writes policy.yaml as the kubelet does.
func publish(t *testing.T, dir string, content []byte) {
	t.Helper()
	version, err := os.MkdirTemp(dir, "..version-") //nolint:usetesting // in the folder of the volume
	testkit.Must(t, err)
	testkit.Must(t, os.WriteFile(filepath.Join(version, "policy.yaml"), content, 0o600))
	next := filepath.Join(dir, "..data_tmp")
	testkit.Must(t, os.Symlink(filepath.Base(version), next))
	testkit.Must(t, os.Rename(next, filepath.Join(dir, "..data")))
	if err := os.Symlink("..data/policy.yaml", filepath.Join(dir, "policy.yaml")); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
}

// wantMetric checks the sum over all series of a counter or gauge.
func wantMetric(t *testing.T, g prometheus.Gatherer, name string, want float64) {
	t.Helper()
	families, err := g.Gather()
	testkit.Must(t, err)
	got, found := 0.0, false
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			got, found = got+m.GetCounter().GetValue()+m.GetGauge().GetValue(), true
		}
	}
	if !found || got != want {
		t.Errorf("%s: got %v, found %v; want %v", name, got, found, want)
	}
}

// Only bootstrap accepts a workspace that does not exist yet. The webhook would send metrics to a
// workspace that does not exist.
func TestNewWorkspaceIsRefused(t *testing.T) {
	good := testkit.ReadFile(t, "testdata/policy.yaml")
	draft := regexp.MustCompile(`workspace/ws-[0-9a-zA-Z-]+`).ReplaceAllString(good, "workspace/ws-new")
	file := testkit.TempFile(t, "policy.yaml", draft)
	source := webhook.WatchPolicy(file, nil, webhook.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err := source.Err(); source.Current() != nil || err == nil ||
		!strings.Contains(err.Error(), "destinations[0].workspace: is ws-new") {
		t.Errorf("got %v, %v", source.Current(), err)
	}
}
