package webhook_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/inject"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const (
	image     = "registry.example.com/ampbridge:v1"
	namespace = "monitoring"
	account   = "prometheus-k8s"
)

// answering is a cluster without limits in which every service account exists. It calls the function
// before each answer.
type answering func()

func (before answering) ServiceAccount(context.Context, string, string) (map[string]string, error) {
	before()
	return nil, nil
}

func (before answering) ServiceAccountAndLimits(context.Context, string, string) (map[string]string, inject.Limits, error) {
	before()
	return nil, inject.Limits{}, nil
}

// fixture serves the handlers over HTTPS, with client-go's fake cluster.
type fixture struct {
	*testing.T
	webhook.Dependencies
	client  *fake.Clientset
	policy  *policy.Policy
	metrics *prometheus.Registry
	log     *testkit.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	p, err := policy.Parse(readFile(t, "testdata/policy.yaml"))
	testkit.Must(t, err)
	f := &fixture{T: t, policy: p, metrics: prometheus.NewRegistry(), log: &testkit.Buffer{}}
	f.client = fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}})
	f.Dependencies = webhook.Dependencies{
		Policy: func() *policy.Policy { return f.policy }, Cluster: webhook.NewCluster(f.client.CoreV1()), Image: image,
		Metrics: webhook.NewMetrics(f.metrics), Logger: slog.New(slog.NewJSONHandler(f.log, nil)),
	}
	return f
}

// serve starts a server for all paths, as in production.
func (f *fixture) serve() *httptest.Server {
	mux := http.NewServeMux()
	for _, i := range []policy.Injection{policy.InjectionEnabled, policy.InjectionAnnotated} {
		mux.Handle(registration.PodPath+string(i), webhook.PodHandler(i, f.Dependencies))
		mux.Handle(registration.ServiceAccountPath+string(i), webhook.ServiceAccountHandler(i, f.Dependencies))
	}
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.StartTLS()
	f.Cleanup(server.Close)
	return server
}

// review sends a review of the object to path and returns the answer, which always admits the
// object.
func (f *fixture) review(path string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	f.Helper()
	server := f.serve()
	return send(f.T, server.Client(), server.URL+path, r)
}

func send(t *testing.T, client *http.Client, url string, r *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	t.Helper()
	answer, err := client.Post(url, "application/json", bytes.NewReader(encode(t, r)))
	testkit.Must(t, err)
	body := testkit.ReadBody(t, answer)
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("got %d, %s: %s", answer.StatusCode, answer.Header.Get("Content-Type"), body)
	}
	var out admissionv1.AdmissionReview
	if err := json.Unmarshal([]byte(body), &out); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if out.APIVersion != "admission.k8s.io/v1" || out.Kind != "AdmissionReview" || out.Response == nil {
		t.Fatalf("got no AdmissionReview: %s", body)
	}
	if out.Response.UID != r.UID || !out.Response.Allowed {
		t.Fatalf("got uid %q, allowed %v; want %q, allowed: %s", out.Response.UID, out.Response.Allowed, r.UID, body)
	}
	return out.Response
}

func encode(t testing.TB, r *admissionv1.AdmissionRequest) []byte {
	t.Helper()
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"}, Request: r,
	})
	testkit.Must(t, err)
	return body
}

// podRequest returns the review of a pod from testdata, as a controller creates it: the pod has no
// namespace of its own.
func podRequest(t testing.TB, file string, edit func(map[string]any)) *admissionv1.AdmissionRequest {
	t.Helper()
	var pod map[string]any
	testkit.Must(t, json.Unmarshal(readFile(t, file), &pod))
	metadata := pod["metadata"].(map[string]any)
	delete(metadata, "namespace")
	delete(metadata, "name")
	if edit != nil {
		edit(pod)
	}
	return request(t, "Pod", "pods", pod)
}

func request(t testing.TB, kind, resource string, object map[string]any) *admissionv1.AdmissionRequest {
	t.Helper()
	raw, err := json.Marshal(object)
	testkit.Must(t, err)
	r := &admissionv1.AdmissionRequest{
		UID:  "705ab4f5-6393-11e8-b7cc-42010a800002",
		Kind: metav1.GroupVersionKind{Version: "v1", Kind: kind}, Resource: metav1.GroupVersionResource{Version: "v1", Resource: resource},
		Namespace: namespace, Operation: admissionv1.Create,
	}
	r.Object.Raw = raw
	return r
}

func annotate(key, value string) func(map[string]any) {
	return func(object map[string]any) {
		metadata := object["metadata"].(map[string]any)
		annotations, _ := metadata["annotations"].(map[string]any)
		if annotations == nil {
			annotations = map[string]any{}
		}
		annotations[key] = value
		metadata["annotations"] = annotations
	}
}

// wantCounted checks that exactly this decision was counted.
func (f *fixture) wantCounted(resource, decision string, reason policy.Reason) {
	f.Helper()
	want := `# HELP ampbridge_admission_decisions_total Admission requests by resource (pod, serviceaccount), ` +
		`decision (inject, skip, error) and reason.
# TYPE ampbridge_admission_decisions_total counter
ampbridge_admission_decisions_total{decision="` + decision + `",reason="` + string(
		reason,
	) + `",resource="` + resource + `"} 1
`
	if err := testutil.GatherAndCompare(f.metrics, strings.NewReader(want), "ampbridge_admission_decisions_total"); err != nil {
		f.Error(err)
	}
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	testkit.Must(t, err)
	return data
}
