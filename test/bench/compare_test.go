package main

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/servingcert"
)

// The servers run this test program, as the bench's servers run the bench.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "serve-") {
		exit(runChild(os.Args[1], os.Args[2:]))
	}
	slice = 20 * time.Millisecond
	os.Exit(m.Run())
}

// compared runs the comparison with another webhook.
func compared(t *testing.T, o compareOptions) (string, error) {
	t.Helper()
	ca, err := o.check()
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	err = measureCompared(t.Context(), t.TempDir(), o, ca, &report{out: &out})
	return out.String(), err
}

// The other webhook is once another instance of ampbridge's, and once a server with a constant
// answer.
func TestCompare(t *testing.T) {
	for kind, want := range map[string]string{"serve-webhook": "admits the pod", "serve-constant": "admits the pod"} {
		t.Run(kind, func(t *testing.T) {
			dir := t.TempDir()
			ca, err := servingcert.Write(dir, "127.0.0.1")
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "ca.pem")
			if err := os.WriteFile(file, ca, 0o600); err != nil {
				t.Fatal(err)
			}
			body, err := reviewOf(operatorPod)
			if err != nil {
				t.Fatal(err)
			}
			other, _, err := startSides(t.Context(), dir, "", ca, body, kind)
			if err != nil {
				t.Fatal(err)
			}
			defer stopAll(other)
			out, err := compared(t, compareOptions{url: other[0].url, ca: file})
			if err != nil {
				t.Fatal(err)
			}
			rows := regexp.MustCompile(`(?m)^HTTP/(2|1\.1) +(1|8|32) +\d+ .* (\d+\.\d\d)$`).FindAllString(out, -1)
			if len(rows) != 6 || !strings.Contains(out, other[0].url+": "+want) {
				t.Errorf("%d rows of figures:\n%s", len(rows), out)
			}
		})
	}
}

// User errors are reported before anything is measured.
func TestCompareErrors(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		o    compareOptions
		want string
	}{
		{compareOptions{url: "127.0.0.1:8443/mutate"}, "-compare: "},
		{compareOptions{url: "webhook"}, "is not the URL of a webhook"},
		{compareOptions{url: "http://127.0.0.1/mutate"}, "write it like https://"},
		{compareOptions{url: "https:///mutate"}, "is not the URL of a webhook"},
		{compareOptions{url: "https://%zz"}, "-compare: "},
		{compareOptions{url: "https://127.0.0.1:1/", ca: filepath.Join(dir, "none.pem")}, "-ca: open "},
		{compareOptions{url: "https://127.0.0.1:1/", ca: empty}, "has no certificate in PEM"},
		{compareOptions{ca: empty}, "belong to -compare"},
		{compareOptions{serverName: "a"}, "belong to -compare"},
		{compareOptions{url: "https://127.0.0.1:1/"}, "refused"},
	} {
		if _, err := compared(t, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
}

// An answer that is not the AdmissionReview for the request results in an error that shows the
// answer.
func TestCompareAnswers(t *testing.T) {
	var status int
	var text string
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(status)
		_, _ = fmt.Fprint(w, text)
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "ca.pem")
	cert := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, cert, 0o600); err != nil {
		t.Fatal(err)
	}
	review := `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"` + uid + `","allowed":true}}`
	for _, c := range []struct {
		status int
		text   string
		want   string
	}{
		{http.StatusNotFound, "404 page\nnot found", "answers 404 Not Found without an AdmissionReview: 404 page not found"},
		{http.StatusOK, "hello", "is not an AdmissionReview: invalid character"},
		{http.StatusOK, "", "is not an AdmissionReview"},
		{http.StatusOK, "{}", "is not an AdmissionReview: {}"},
		{http.StatusOK, `{"kind":"Status"}`, `is not an AdmissionReview: {"kind":"Status"}`},
		{http.StatusOK, strings.Replace(review, "admission.k8s.io", "example.com", 1), "is not an AdmissionReview"},
		{http.StatusOK, strings.Replace(review, `,"allowed":true`, "", 1), "is not an AdmissionReview"},
		{http.StatusOK, strings.Replace(review, uid, "other", 1), `its uid is "other"`},
		{http.StatusOK, strings.Repeat("x", 1000), "x…"},
	} {
		status, text = c.status, c.text
		if _, err := compared(t, compareOptions{url: server.URL, ca: file}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d %.60q: %v, want %q", c.status, c.text, err, c.want)
		}
	}
	status, text = http.StatusOK, review
	if _, err := compared(t, compareOptions{url: server.URL}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown CA: %v", err)
	}
	if _, err := compared(t, compareOptions{url: server.URL, ca: file, serverName: "other.example"}); err == nil ||
		!strings.Contains(err.Error(), "other.example") {
		t.Errorf("another name: %v", err)
	}
	// httptest's server supports only HTTP/1.1, and leaves the pod unchanged.
	text = strings.Replace(review, `"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",`, "", 1)
	out, err := compared(t, compareOptions{url: server.URL, ca: file, serverName: "example.com"})
	if err != nil || !strings.Contains(out, "the other webhook does not support it") ||
		!strings.Contains(out, "unchanged, which takes less time") {
		t.Errorf("%v: %s", err, out)
	}
}
