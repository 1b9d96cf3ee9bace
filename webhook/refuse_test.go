package webhook_test

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// A request that is not a review for this webhook is refused. So a wrong registration is noticed,
// and no client takes a missing answer for an approval.
func TestRefused(t *testing.T) {
	good := podRequest(t, operatorPod, nil)
	edited := func(edit func(*admissionv1.AdmissionRequest)) []byte {
		r := good.DeepCopy()
		edit(r)
		return encode(t, r)
	}
	for _, test := range []struct {
		name        string
		path        string
		method      string
		contentType string
		body        []byte
		status      int
		text        string
	}{
		{"GET", "/pods/enabled", http.MethodGet, "", nil, http.StatusMethodNotAllowed, "must be POST"},
		{"protobuf", "/pods/enabled", http.MethodPost, "application/vnd.kubernetes.protobuf", encode(t, good), http.StatusUnsupportedMediaType,
			"application/json"},
		{"no content type", "/pods/enabled", http.MethodPost, "", encode(t, good), http.StatusUnsupportedMediaType, "application/json"},
		{"too large", "/pods/enabled", http.MethodPost, "application/json", bytes.Repeat([]byte(" "), 8<<20), http.StatusRequestEntityTooLarge,
			"bytes"},
		{"empty", "/pods/enabled", http.MethodPost, "application/json", nil, http.StatusBadRequest, "not an AdmissionReview"},
		{"not JSON", "/pods/enabled", http.MethodPost, "application/json", []byte("apiVersion: v1"), http.StatusBadRequest,
			"not an AdmissionReview"},
		{"cut off", "/pods/enabled", http.MethodPost, "application/json", encode(t, good)[:200], http.StatusBadRequest, "not an AdmissionReview"},
		{"other object", "/pods/enabled", http.MethodPost, "application/json", good.Object.Raw, http.StatusBadRequest, "not an AdmissionReview"},
		{"other version", "/pods/enabled", http.MethodPost, "application/json",
			bytes.Replace(encode(t, good), []byte("admission.k8s.io/v1"), []byte("admission.k8s.io/v1beta1"), 1), http.StatusBadRequest,
			"admission.k8s.io/v1"},
		{"no request", "/pods/enabled", http.MethodPost, "application/json", []byte(`{"apiVersion":"admission.k8s.io/v1",` +
			`"kind":"AdmissionReview"}`), http.StatusBadRequest, "request"},
		{"no uid", "/pods/enabled", http.MethodPost, "application/json", edited(func(r *admissionv1.AdmissionRequest) { r.UID = "" }),
			http.StatusBadRequest, "uid"},
		{"other kind", "/pods/enabled", http.MethodPost, "application/json",
			edited(func(r *admissionv1.AdmissionRequest) { r.Kind.Kind = "ServiceAccount" }), http.StatusBadRequest, "kind Pod"},
		{"other group", "/pods/enabled", http.MethodPost, "application/json",
			edited(func(r *admissionv1.AdmissionRequest) { r.Kind.Group = "metrics.k8s.io" }), http.StatusBadRequest, "kind Pod"},
		{"subresource", "/pods/enabled", http.MethodPost, "application/json",
			edited(func(r *admissionv1.AdmissionRequest) { r.SubResource = "ephemeralcontainers" }), http.StatusBadRequest, "kind Pod"},
		{"pod update", "/pods/annotated", http.MethodPost, "application/json",
			edited(func(r *admissionv1.AdmissionRequest) { r.Operation = admissionv1.Update }), http.StatusBadRequest, "CREATE"},
		{"pod as service account", "/serviceaccounts/enabled", http.MethodPost, "application/json", encode(t, good), http.StatusBadRequest,
			"kind ServiceAccount"},
		{"service account delete", "/serviceaccounts/annotated", http.MethodPost, "application/json",
			edited(func(r *admissionv1.AdmissionRequest) {
				r.Kind, r.Operation = metav1.GroupVersionKind{Version: "v1", Kind: "ServiceAccount"}, admissionv1.Delete
			}), http.StatusBadRequest, "UPDATE"},
		{"other path", "/pods/disabled", http.MethodPost, "application/json", encode(t, good), http.StatusNotFound, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			server := f.serve()
			r, err := http.NewRequestWithContext(t.Context(), test.method, server.URL+test.path, bytes.NewReader(test.body))
			testkit.Must(t, err)
			if test.contentType != "" {
				r.Header.Set("Content-Type", test.contentType)
			}
			answer, err := server.Client().Do(r)
			testkit.Must(t, err)
			text := testkit.ReadBody(t, answer)
			if answer.StatusCode != test.status || !strings.Contains(text, test.text) {
				t.Errorf("got %d: %s; want %d and %q", answer.StatusCode, text, test.status, test.text)
			}
			if len(text) > 500 {
				t.Errorf("the text has %d bytes: %s", len(text), text)
			}
		})
	}
}

// The handler accepts parameters of the content type and unknown members.
func TestLenient(t *testing.T) {
	f := newFixture(t)
	server := f.serve()
	body := bytes.Replace(
		encode(t, podRequest(t, operatorPod, nil)),
		[]byte(`"request":{`),
		[]byte(`"future":[1],"request":{"future":{},`),
		1,
	)
	answer, err := server.Client().Post(server.URL+"/pods/enabled", "application/json; charset=utf-8", bytes.NewReader(body))
	testkit.Must(t, err)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("got %d", answer.StatusCode)
	}
}
