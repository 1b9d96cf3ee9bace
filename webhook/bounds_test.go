package webhook_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// repeat returns a list or mapping with n copies of the same item.
func repeat(opening, item string, n int) string {
	return opening + strings.TrimSuffix(strings.Repeat(item+",", n), ",") + "]"
}

// hostileReview returns a review of a pod with these members, as the API server encodes it.
func hostileReview(metadata, spec string) []byte {
	return fmt.Appendf(
		nil,
		`{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"705ab4f5","kind":{"group":"","version":"v1",`+
			`"kind":"Pod"},`+
			`"resource":{"group":"","version":"v1","resource":"pods"},"name":"prometheus-0","namespace":"monitoring",`+
			`"operation":"CREATE","userInfo":{"username":"tenant"},`+
			`"object":{"kind":"Pod","apiVersion":"v1","metadata":{%s},"spec":{%s}},"oldObject":null,"dryRun":true}}`,
		metadata,
		spec,
	)
}

const prometheusContainer = `{"name":"prometheus","image":"quay.io/prometheus/prometheus:v3.0.0"`

// maxAllocated is the most that one review may allocate, including garbage, in bytes.
const maxAllocated = 24 << 20

// An object that would need more memory than the webhook has is admitted unchanged, with a warning
// and a metric, before it uses the memory.
func TestObjectsBeyondABound(t *testing.T) {
	containers := func(inside string) string { return `"containers":[` + prometheusContainer + `,` + inside + `}]` }
	for _, test := range []struct {
		name    string
		body    []byte
		warning string
	}{
		{"7 MB of empty containers", hostileReview("", repeat(`"containers":[`, "{}", 2_300_000)), "1048576 bytes"},
		{"3 MB of envFrom", hostileReview("", containers(repeat(`"envFrom":[`, "{}", 1_000_000))), "1048576 bytes"},
		{"1 MB of empty containers", hostileReview("", repeat(`"containers":[`, "{}", 340_000)), "/request/object/spec/containers has " +
			"more than 1000 items"},
		{"60 KB of empty containers", hostileReview("", repeat(`"containers":[`, "{}", 20_000)), "/request/object/spec/containers has " +
			"more than 1000 items"},
		{"envFrom", hostileReview("", containers(repeat(`"envFrom":[`, "{}", 100_000))), "/spec/containers/0/envFrom has more than 1000 items"},
		{"env", hostileReview("", containers(repeat(`"env":[`, `{"name":""}`, 60_000))), "/env has more than 1000 items"},
		{"arguments", hostileReview("", containers(repeat(`"args":[`, `""`, 200_000))), "/args has more than 1000 items"},
		{"owners", hostileReview(repeat(`"ownerReferences":[`, "{}", 200_000), containers(`"args":[]`)), "/metadata/ownerReferences " +
			"has more than 1000 items"},
		{"lists that are not decoded", hostileReview(repeat(`"managedFields":[`, "{}", 200_000), containers(`"args":[]`)),
			"/metadata/managedFields has more than 1000 items"},
		{"lists of lists", hostileReview(`"future":`+repeat("[", repeat("[", "[]", 900), 100), containers(`"args":[]`)),
			"more than 20000 values"},
		{"labels", hostileReview(`"labels":`+numbered(20_000), containers(`"args":[]`)), "/metadata/labels has more than 1000 fields"},
		{"a string", hostileReview(`"annotations":{"a":"`+strings.Repeat("x", 300<<10)+`"}`, containers(`"args":[]`)),
			"/metadata/annotations/a has more than 262144 bytes"},
		{"a long name of a long list", hostileReview(`"`+strings.Repeat("x", 2000)+`":`+repeat("[", "{}", 20_000), containers(`"args":[]`)),
			"… has more than 1000 items"},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, chunked %v", test.name, chunked), func(t *testing.T) {
				f := newFixture(t)
				server := f.serve()
				var body io.Reader = bytes.NewReader(test.body)
				if chunked {
					body = struct{ io.Reader }{body}
				}
				answer, err := server.Client().Post(server.URL+"/pods/enabled", "application/json", body)
				testkit.Must(t, err)
				text := testkit.ReadBody(t, answer)
				for _, want := range []string{`"allowed":true`, `"uid":"705ab4f5"`, "ampbridge: not injected: ", test.warning, "make it smaller"} {
					if answer.StatusCode != http.StatusOK || !strings.Contains(text, want) {
						t.Errorf("got %d: %s; want %s", answer.StatusCode, text, want)
					}
				}
				if strings.Contains(text, "patch") {
					t.Errorf("got a patch: %s", text)
				}
				f.wantCounted("pod", "skip", webhook.TooLarge)
				for _, want := range []string{`"reason":"TooLarge"`, `"name":"prometheus-0"`, `"namespace":"monitoring"`, `"uid":"705ab4f5"`} {
					if !strings.Contains(f.log.String(), want) {
						t.Errorf("the log lacks %s: %s", want, f.log)
					}
				}
				if n := len(f.log.String()); n > 2000 {
					t.Errorf("%d bytes were logged", n)
				}
			})
		}
		t.Run(test.name+", memory", func(t *testing.T) { wantAllocated(t, newFixture(t), test.body) })
	}
}

// Big pods that exist in practice are injected.
func TestBigPodsAreInjected(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(pod map[string]any)
	}{
		{"500 more volumes", func(pod map[string]any) {
			spec := pod["spec"].(map[string]any)
			container := spec["containers"].([]any)[0].(map[string]any)
			for i := range 500 {
				name := fmt.Sprintf("rules-%d", i)
				spec["volumes"] = append(spec["volumes"].([]any),
					map[string]any{"name": name, "configMap": map[string]any{"name": name, "defaultMode": 420}})
				container["volumeMounts"] = append(container["volumeMounts"].([]any),
					map[string]any{"name": name, "mountPath": "/etc/" + name, "readOnly": true})
			}
		}},
		{"an annotation of 200 KB", annotate("kubectl.kubernetes.io/last-applied-configuration", strings.Repeat(`{"a":["b"]},`, 16_000))},
		{"900 variables", func(pod map[string]any) {
			container := pod["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
			var env []any
			for i := range 900 {
				env = append(env, map[string]any{"name": fmt.Sprintf("V%d", i), "value": strings.Repeat("x", 500)})
			}
			container["env"] = env
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			r := podRequest(t, operatorPod, test.edit)
			answer := f.review("/pods/enabled", r)
			if answer.Patch == nil || len(answer.Warnings) != 0 {
				t.Fatalf("got patch %.100s, warnings %q", answer.Patch, answer.Warnings)
			}
			f.wantCounted("pod", "inject", policy.Granted)
			wantAllocated(t, f, encode(t, r))
		})
	}
}

// The same limits apply to the body of a service account.
func TestServiceAccountBeyondABound(t *testing.T) {
	f := newFixture(t)
	secrets := make([]any, 100_000)
	for i := range secrets {
		secrets[i] = map[string]any{}
	}
	r := request(t, "ServiceAccount", "serviceaccounts", map[string]any{"metadata": map[string]any{"name": account}, "secrets": secrets})
	f.wantUntouched(f.review("/serviceaccounts/enabled", r), "/request/object/secrets has more than 1000 items")
	f.wantCounted("serviceaccount", "skip", webhook.TooLarge)
}

// Names and annotations are not validated yet, so logs and warnings shorten them.
func TestLongNamesAreShortened(t *testing.T) {
	long := strings.Repeat("ä", 20_000)
	for _, test := range []struct {
		name string
		edit func(pod map[string]any)
	}{
		{"generateName", func(pod map[string]any) { pod["metadata"].(map[string]any)["generateName"] = long }},
		{"service account", func(pod map[string]any) { pod["spec"].(map[string]any)["serviceAccountName"] = long }},
		{"annotation", annotate(policy.AnnotationInject, long)},
		{"destinations", annotate(policy.AnnotationDestinations, long)},
		{"container", annotate(policy.AnnotationContainer, long)},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			answer := f.review("/pods/enabled", podRequest(t, operatorPod, test.edit))
			for _, warning := range answer.Warnings {
				if len(warning) > 4096 || strings.ContainsRune(warning, '\uFFFD') {
					t.Errorf("a warning of %d bytes: %.100s", len(warning), warning)
				}
			}
			if text := f.log.String(); len(text) > 12_000 || strings.ContainsRune(text, '\uFFFD') {
				t.Errorf("%d bytes were logged: %.200s", len(text), text)
			}
		})
	}
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"l%d":""`, i)
	}
	return "{" + b.String()[1:] + "}"
}

// wantAllocated lets the handler answer once and limits what that allocates.
func wantAllocated(t *testing.T, f *fixture, body []byte) {
	t.Helper()
	handler := webhook.PodHandler(policy.InjectionEnabled, f.Dependencies)
	if got := allocated(handler, body); got > maxAllocated {
		t.Errorf("%d bytes were allocated for a body of %d, want at most %d", got, len(body), maxAllocated)
	}
}

func allocated(handler http.Handler, body []byte) uint64 {
	_, _, spent := serveOnce(handler, body)
	return spent
}

// serveOnce returns the answer and how many bytes were allocated for it.
func serveOnce(handler http.Handler, body []byte) (status int, text []byte, spent uint64) {
	r := httptest.NewRequest(http.MethodPost, "/pods/enabled", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	handler.ServeHTTP(w, r)
	runtime.ReadMemStats(&after)
	return w.Code, w.Body.Bytes(), after.TotalAlloc - before.TotalAlloc
}

var discard = slog.New(slog.DiscardHandler)

// wantReview checks that the answer is a review that admits the object.
func wantReview(t *testing.T, text []byte) {
	t.Helper()
	var out admissionv1.AdmissionReview
	switch err := json.Unmarshal(text, &out); {
	case err != nil:
		t.Errorf("%v: %s", err, text)
	case out.APIVersion != "admission.k8s.io/v1" || out.Kind != "AdmissionReview" || out.Response == nil || !out.Response.Allowed ||
		out.Response.UID == "":
		t.Errorf("want a review that admits the object, got: %s", text)
	case len(out.Response.Patch) > 0:
		if _, err := jsonpatch.DecodePatch(out.Response.Patch); err != nil {
			t.Errorf("%v: %s", err, out.Response.Patch)
		}
	}
}
