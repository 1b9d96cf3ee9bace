package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

func TestPolicyReview(t *testing.T) {
	good := string(readFile(t, "testdata/policy.yaml"))
	broken := strings.Replace(good, "cluster:", "clustre:", 1) + "pausd: true\n"
	for _, test := range []struct {
		name     string
		data     map[string]string
		version  string // not set if empty
		decision string
		want     []string // in the answer
	}{
		{"good", map[string]string{"policy.yaml": good}, policy.SchemaVersion, "accepted", nil},
		{"good, unmarked", map[string]string{"policy.yaml": good}, "", "accepted", nil},
		{"every mistake at once, with file, line, field and fix", map[string]string{"policy.yaml": broken}, policy.SchemaVersion, "refused",
			[]string{
				"policy.yaml: line ", "clustre: unknown field: did you mean cluster?", "pausd: unknown field: did you mean paused?", "cluster.name",
			}},
		{"a wrong destination", map[string]string{"policy.yaml": strings.Replace(good, "destinations: [central", "destinations: [centrall",
			1)}, "", "refused", []string{
			"policy.yaml: line ", "grants[0].destinations[0]", `"centrall"`,
		}},
		{"bad, unmarked", map[string]string{"policy.yaml": broken}, "", "refused", []string{"clustre"}},
		{"not YAML", map[string]string{"policy.yaml": "a: [b"}, "", "refused", []string{"policy.yaml: ", "not YAML"}},
		{"empty", map[string]string{"policy.yaml": ""}, "", "refused", []string{"policy.yaml: the file is empty"}},
		{"no data", nil, "", "refused", []string{"no key policy.yaml"}},
		{"another key", map[string]string{"policy.yml": good}, "", "refused", []string{"no key policy.yaml"}},
		{"one key too many", map[string]string{"policy.yaml": good, "more.yaml": "a"}, "", "accepted",
			[]string{"warnings", "more.yaml is not read"}},
		{"bad, of a newer version", map[string]string{"policy.yaml": broken}, "2000", "unchecked", []string{"warnings", `version \"2000\"`}},
		{"good, of an older version", map[string]string{"policy.yaml": good}, "0", "unchecked", []string{"warnings", `version \"0\"`}},
		{"more than is read", map[string]string{"policy.yaml": good + strings.Repeat("#", 300<<10)}, "", "unchecked",
			[]string{"warnings", "not checked", "262144 bytes"}},
		{"more lines than are checked", map[string]string{"policy.yaml": good + strings.Repeat("#\n", 21_000)}, "", "unchecked",
			[]string{"warnings", "more than 20000 lines"}},
		{"many mistakes", map[string]string{"policy.yaml": "kind: Policy\n" + strings.Repeat("a: 1\n", 1000)}, "", "refused", []string{"more"}},
		{"a long mistake", map[string]string{"policy.yaml": "kind: Policy\n" + strings.Repeat("x", 100_000) + ": 1\n"}, "", "refused",
			[]string{"unknown field", "…"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			metadata := map[string]any{"name": "ampbridge-policy"}
			if test.version != "" {
				metadata["annotations"] = map[string]string{policy.AnnotationVersion: test.version}
			}
			r := request(t, "ConfigMap", "configmaps", map[string]any{"metadata": metadata, "data": test.data})
			r.Operation = admissionv1.Update
			status, text := reviewPolicy(f, encode(t, r))
			if status != http.StatusOK || len(text) > 40_000 {
				t.Fatalf("got %d: %d bytes: %.500s", status, len(text), text)
			}
			var out admissionv1.AdmissionReview
			if err := json.Unmarshal(text, &out); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			if got, want := out.Response.Allowed, test.decision != "refused"; got != want || out.Response.UID != r.UID {
				t.Errorf("allowed: got %v, want %v: %s", got, want, text)
			}
			if refused := out.Response.Result; (refused != nil) != !out.Response.Allowed ||
				refused != nil && refused.Code != http.StatusUnprocessableEntity {
				t.Errorf("status: %+v", refused)
			}
			unquoted := string(text)
			if out.Response.Result != nil {
				unquoted = out.Response.Result.Message
			}
			for _, want := range test.want {
				if !strings.Contains(unquoted, want) {
					t.Errorf("the answer lacks %s: %.2000s", want, unquoted)
				}
			}
			if test.want == nil && strings.Contains(unquoted, "warnings") {
				t.Errorf("got a warning: %s", text)
			}
			wantLabelled(t, f.metrics, "ampbridge_policy_reviews_total", test.decision)
		})
	}
}

// An upgrade or a rollback applies the policy before the webhook of its version runs. The webhook
// of the other version accepts both.
func TestPolicyReviewAcrossVersions(t *testing.T) {
	f := newFixture(t)
	good := string(readFile(t, "testdata/policy.yaml"))
	newer := good + "fieldOfTheFuture: true\n"
	for _, step := range []struct {
		what, version, text string
		allowed             bool
	}{
		{"installed", policy.SchemaVersion, good, true},
		{"upgraded, before the new webhook runs", "1000", newer, true},
		{"changed by hand during the upgrade", "1000", newer + "pausd: true\n", true},
		{"rolled back", policy.SchemaVersion, good, true},
		{"the newer policy with the older mark", policy.SchemaVersion, newer, false},
		{"rolled back further", "0", "nothing: we know\n", true},
	} {
		r := request(t, "ConfigMap", "configmaps", map[string]any{
			"metadata": map[string]any{
				"name":        "ampbridge-policy",
				"annotations": map[string]string{policy.AnnotationVersion: step.version},
			},
			"data": map[string]string{"policy.yaml": step.text},
		})
		if _, text := reviewPolicy(f, encode(t, r)); strings.Contains(string(text), `"allowed":true`) != step.allowed {
			t.Errorf("%s: allowed must be %v: %s", step.what, step.allowed, text)
		}
	}
}

// The memory for a policy is limited, whatever the policy contains.
func TestPolicyReviewMemory(t *testing.T) {
	const (
		size = 240 << 10 // of the JSON string
		most = 48 << 20
	)
	for _, unit := range []string{"[", "{", "- ", "a: 1\n", "a,", "- a\n", "&a ", "? ", "[],", "x: {}\n"} {
		f := newFixture(t)
		text := strings.Repeat(
			unit,
			min(
				20_000/max(1, strings.Count(unit, "\n")+strings.Count(unit, ",")+strings.Count(unit, "[")+strings.Count(unit, "{"))-2,
				size/(len(unit)+strings.Count(unit, "\n")),
			),
		)
		if strings.HasSuffix(unit, ",") {
			text = "a: [" + text + "]"
		}
		r := request(
			t,
			"ConfigMap",
			"configmaps",
			map[string]any{"metadata": map[string]any{"name": "ampbridge-policy"}, "data": map[string]string{"policy.yaml": text}},
		)
		r.Operation = admissionv1.Update
		body := encode(t, r)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		reviewPolicy(f, body)
		runtime.ReadMemStats(&after)
		if spent := after.TotalAlloc - before.TotalAlloc; spent > most {
			t.Errorf("%q: %d bytes were allocated, want at most %d", unit, spent, most)
		}
	}
}

// reviewPolicy lets the policy's handler answer once.
func reviewPolicy(f *fixture, body []byte) (status int, text []byte) {
	r := httptest.NewRequest(http.MethodPost, "/policy", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	webhook.PolicyHandler("policy.yaml", f.Dependencies).ServeHTTP(w, r)
	return w.Code, w.Body.Bytes()
}

func wantLabelled(t *testing.T, g prometheus.Gatherer, name, value string) {
	t.Helper()
	families, err := g.Gather()
	testkit.Must(t, err)
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if family.GetName() == name && label.GetValue() == value && m.GetCounter().GetValue() == 1 {
					return
				}
			}
		}
	}
	t.Errorf("%s does not count one %s", name, value)
}

// The last good policy survives a restart of all replicas.
func TestLastGoodPolicySurvivesARestart(t *testing.T) {
	good := readFile(t, "testdata/policy.yaml")
	paused := append(bytes.Clone(good), "paused: true\n"...)
	broken := append(bytes.Clone(good), "pausd: true\n"...)
	client := fake.NewClientset(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ampbridge-system", Name: webhook.AcceptedConfigMap}},
	)
	maps := client.CoreV1().ConfigMaps("ampbridge-system")
	accepted := webhook.AcceptedOf(maps)
	kept := func() string {
		object, err := maps.Get(t.Context(), webhook.AcceptedConfigMap, metav1.GetOptions{})
		testkit.Must(t, err)
		if version := object.Annotations[policy.AnnotationVersion]; len(object.Data) > 0 && version != policy.SchemaVersion {
			t.Errorf("the copy is marked with version %q", version)
		}
		return object.Data["accepted.yaml"]
	}
	dir := t.TempDir()
	start := func(content []byte) (*policyfile.Watcher, *prometheus.Registry) {
		publish(t, dir, content)
		registry := prometheus.NewRegistry()
		source := webhook.WatchPolicy(
			filepath.Join(dir, "policy.yaml"),
			accepted,
			webhook.NewMetrics(registry),
			slog.New(slog.DiscardHandler),
		)
		go source.Follow(t.Context())
		go source.Persist(t.Context())
		return source, registry
	}

	t.Run("before there was a good version", func(t *testing.T) {
		source, _ := start(broken)
		if err := source.Restore(t.Context()); err == nil || !strings.Contains(err.Error(), "is empty") || source.Current() != nil {
			t.Errorf("got policy %v, error %v", source.Current(), err)
		}
	})
	t.Run("good versions are kept", func(t *testing.T) {
		start(good)
		testkit.Eventually(t, "the first is kept", func() bool { return kept() == string(good) })
		publish(t, dir, paused)
		testkit.Eventually(t, "the next is kept", func() bool { return kept() == string(paused) })
		publish(t, dir, broken)
	})
	t.Run("a bad version is replaced by the copy", func(t *testing.T) {
		source, registry := start(broken)
		testkit.Eventually(t, "the copy is in force", func() bool { p := source.Current(); return p != nil && p.Paused })
		wantMetric(t, registry, "ampbridge_policy_from_accepted_copy", 1)
		wantMetric(t, registry, "ampbridge_policy_last_load_success", 0)
		wantMetric(t, registry, "ampbridge_policy_info", 1)
		if kept() != string(paused) {
			t.Error("the copy has changed")
		}
		publish(t, dir, good)
		testkit.Eventually(t, "the file is in force again", func() bool { return !source.Current().Paused })
		wantMetric(t, registry, "ampbridge_policy_from_accepted_copy", 0)
		testkit.Eventually(t, "it is kept", func() bool { return kept() == string(good) })
	})
	t.Run("the API server fails for a while", func(t *testing.T) {
		failing := make(chan struct{}, 3)
		for range cap(failing) {
			failing <- struct{}{}
		}
		client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, kuberuntime.Object, error) {
			select {
			case <-failing:
				return true, nil, errors.New("etcdserver: leader changed")
			default:
				return false, nil, nil
			}
		})
		source, _ := start(broken)
		testkit.Eventually(t, "the copy is in force", func() bool { return source.Current() != nil })
	})
	t.Run("a copy that this version cannot read", func(t *testing.T) {
		object, err := maps.Get(t.Context(), webhook.AcceptedConfigMap, metav1.GetOptions{})
		testkit.Must(t, err)
		object.Data["accepted.yaml"], object.Annotations[policy.AnnotationVersion] = string(broken), "2000"
		if _, err := maps.Update(t.Context(), object, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		publish(t, dir, broken)
		source := webhook.WatchPolicy(
			filepath.Join(dir, "policy.yaml"),
			accepted,
			webhook.NewMetrics(prometheus.NewRegistry()),
			slog.New(slog.DiscardHandler),
		)
		if err := source.Restore(t.Context()); err == nil || !strings.Contains(err.Error(), `version "2000"`) || source.Current() != nil {
			t.Errorf("got policy %v, error %v", source.Current(), err)
		}
	})
}
