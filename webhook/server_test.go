package webhook_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// running is a complete running webhook.
type running struct {
	webhook.Options
	*testing.T
	log  *testkit.Buffer
	stop context.CancelFunc
	done chan error
}

// run starts a webhook without a certificate and without a policy.
func run(t *testing.T, edit func(*webhook.Options)) *running {
	t.Helper()
	w := &running{T: t, log: &testkit.Buffer{}, done: make(chan error, 1)}
	w.Options = webhook.Options{
		Addr:        testkit.FreeAddr(t),
		HealthAddr:  testkit.FreeAddr(t),
		MetricsAddr: testkit.FreeAddr(t),
		CertDir:     t.TempDir(),
		PolicyFile:  filepath.Join(t.TempDir(), "policy.yaml"),
		Image:       image,
		Cluster: webhook.NewCluster(
			fake.NewClientset(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}}).CoreV1(),
		),
		Logger: slog.New(slog.NewJSONHandler(w.log, nil)),
	}
	if edit != nil {
		edit(&w.Options)
	}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	go func() { w.done <- webhook.Run(ctx, w.Options) }()
	t.Cleanup(func() {
		stop()
		if err := <-w.done; err != nil {
			t.Errorf("Run: %v; log: %s", err, w.log)
		}
		close(w.done)
	})
	return w
}

func (w *running) writePolicy() {
	w.Helper()
	testkit.WriteFile(w, w.PolicyFile, testkit.ReadFile(w, "testdata/policy.yaml"))
}

// writeCertificate creates a new certificate and a client that trusts only this one.
func (w *running) writeCertificate() *http.Client {
	w.Helper()
	ca, err := servingcert.Write(w.CertDir, "127.0.0.1")
	testkit.Must(w.T, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}}
	w.Cleanup(client.CloseIdleConnections)
	return client
}

func (w *running) ready() (bool, string) {
	w.Helper()
	answer, err := http.Get("http://" + w.HealthAddr + "/readyz")
	if err != nil {
		return false, err.Error()
	}
	text := testkit.ReadBody(w, answer)
	return answer.StatusCode == http.StatusOK, text
}

func (w *running) eventuallyReady() {
	w.Helper()
	testkit.Eventually(w.T, "ready", func() bool { ok, _ := w.ready(); return ok })
}

// runReady starts a webhook, and returns it with a client when it is ready.
func runReady(t *testing.T) (*running, *http.Client) {
	t.Helper()
	w := run(t, nil)
	w.writePolicy()
	client := w.writeCertificate()
	w.eventuallyReady()
	return w, client
}

// sendPod returns the answer to a request for a pod that must be injected.
func (w *running) sendPod(client *http.Client) *admissionv1.AdmissionResponse {
	w.Helper()
	return send(w.T, client, "https://"+w.Addr+"/pods/enabled", podRequest(w.T, operatorPod, nil))
}

func TestReadiness(t *testing.T) {
	w := run(t, nil)
	testkit.Eventually(t, "not ready, and the reason is given", func() bool {
		ok, text := w.ready()
		return !ok && strings.Contains(text, "no policy is loaded") && strings.Contains(text, "no serving certificate is loaded") &&
			strings.Contains(text, "tls.crt")
	})
	answer, err := http.Get("http://" + w.HealthAddr + "/healthz")
	testkit.Must(t, err)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("alive, while it waits: got %d", answer.StatusCode)
	}

	client := w.writeCertificate()
	testkit.Eventually(t, "only the policy is missing", func() bool {
		ok, text := w.ready()
		return !ok && strings.Contains(text, "no policy is loaded") && !strings.Contains(text, "certificate") &&
			!strings.Contains(text, "server")
	})
	unready := w.sendPod(client)
	if unready.Patch != nil || len(unready.Warnings) != 1 {
		t.Errorf("without a policy: got patch %s, warnings %q", unready.Patch, unready.Warnings)
	}

	w.writePolicy()
	w.eventuallyReady()
	if answer := w.sendPod(client); answer.Patch == nil {
		t.Errorf("ready: got no patch, warnings %q", answer.Warnings)
	}
}

func TestCertificateRotates(t *testing.T) {
	w, first := runReady(t)
	w.sendPod(first)
	second := w.writeCertificate()
	testkit.Eventually(t, "the new certificate is served", func() bool {
		answer, err := second.Get("https://" + w.Addr + "/pods/enabled")
		if err != nil {
			return false
		}
		return answer.Body.Close() == nil
	})
	// An open connection is not closed.
	w.sendPod(first)
}

func TestMetricsAreServed(t *testing.T) {
	w, client := runReady(t)
	w.sendPod(client)
	answer, err := http.Get("http://" + w.MetricsAddr + "/metrics")
	testkit.Must(t, err)
	text := testkit.ReadBody(t, answer)
	for _, want := range []string{
		`ampbridge_admission_decisions_total{decision="inject",reason="Granted",resource="pod"} 1`,
		`ampbridge_admission_duration_seconds_count{resource="pod"} 1`,
		"ampbridge_policy_info{hash=", "ampbridge_policy_last_load_success 1", "ampbridge_policy_load_errors_total",
		"process_resident_memory_bytes", "go_goroutines", "certwatcher_read_certificate_total",
		"ampbridge_certificate_expiry_timestamp_seconds 1.", "ampbridge_certificate_rotations_total 0",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestRunFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer func() { _ = taken.Close() }()
	complete := func() webhook.Options {
		o := webhook.Options{
			Addr:        testkit.FreeAddr(t),
			HealthAddr:  testkit.FreeAddr(t),
			MetricsAddr: testkit.FreeAddr(t),
			CertDir:     t.TempDir(),
			PolicyFile:  "policy.yaml",
			Image:       image,
			Cluster:     answering(func() { panic("broken") }),
			Logger:      slog.New(slog.DiscardHandler),
		}
		if _, err := servingcert.Write(o.CertDir, "127.0.0.1"); err != nil {
			t.Fatal(err)
		}
		return o
	}
	for _, test := range []struct {
		name string
		edit func(*webhook.Options)
		want string
	}{
		{"no certificate directory", func(o *webhook.Options) { o.CertDir = "" }, "CertDir"},
		{"two kinds of certificates", func(o *webhook.Options) { o.CertSecret, o.Service, o.Namespace = "tls", "webhook", "ampbridge" },
			"either CertDir or CertSecret"},
		{"no service", func(o *webhook.Options) { o.CertDir, o.CertSecret, o.Namespace = "", "tls", "ampbridge" }, "Service"},
		{"no namespace", func(o *webhook.Options) { o.CertDir, o.CertSecret, o.Service = "", "tls", "webhook" }, "Namespace"},
		{"no API server to keep a Secret in", func(o *webhook.Options) {
			o.CertDir, o.CertSecret, o.Service, o.Namespace = "", "tls", "webhook", "ampbridge"
		}, "RESTConfig"},
		{"no policy file", func(o *webhook.Options) { o.PolicyFile = "" }, "PolicyFile"},
		{"no image", func(o *webhook.Options) { o.Image = "" }, "Image"},
		{"no cluster", func(o *webhook.Options) { o.Cluster = nil }, "RESTConfig"},
		{"no port", func(o *webhook.Options) { o.Addr = "127.0.0.1" }, "Addr"},
		{"port 0", func(o *webhook.Options) { o.Addr = "127.0.0.1:0" }, "Addr"},
		{"port taken", func(o *webhook.Options) { o.Addr = taken.Addr().String() }, "address already in use"},
		{"health port taken", func(o *webhook.Options) { o.HealthAddr = taken.Addr().String() }, "health"},
		{"metrics port taken", func(o *webhook.Options) { o.MetricsAddr = taken.Addr().String() }, "metrics"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := complete()
			test.edit(&o)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := webhook.Run(ctx, o); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}

// A webhook that stops still serves until no client calls it any more. It also completes the
// requests in flight.
func TestShutdownDropsNothing(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(protocol, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			enter := sync.OnceFunc(func() { close(entered) })
			slow := answering(func() { enter(); <-release })
			w := run(t, func(o *webhook.Options) { o.Cluster, o.DrainDelay = slow, 2*time.Second })
			w.writePolicy()
			client := w.writeCertificate()
			if protocol == "HTTP/1.1" {
				client.Transport.(*http.Transport).ForceAttemptHTTP2 = false
			}
			w.eventuallyReady()

			// One request waits in its look-up during the whole shutdown.
			body := encode(t, podRequest(t, operatorPod, nil))
			patched := make(chan error, 1)
			go func() { patched <- post(client, w.Addr, body, protocol, `"patch"`) }()
			<-entered

			// Other requests arrive while the webhook drains.
			var sent atomic.Int64
			var clients sync.WaitGroup
			leave := make(chan struct{})
			for range 4 {
				clients.Go(func() {
					quick := bytes.Replace(body, []byte(`"operation":"CREATE"`), []byte(`"operation":"UPDATE"`), 1)
					for {
						select {
						case <-leave:
							return
						default:
						}
						if err := post(client, w.Addr, quick, protocol, "this path accepts"); err != nil {
							t.Errorf("while draining: %v", err)
							return
						}
						sent.Add(1)
					}
				})
			}
			before := sent.Load()
			testkit.Eventually(t, "requests flow", func() bool { return sent.Load() > before+10 })
			w.stop()
			testkit.Eventually(t, "not ready while it drains", func() bool {
				ok, text := w.ready()
				return !ok && strings.Contains(text, "shutting down")
			})
			drained := sent.Load()
			testkit.Eventually(t, "it serves while it drains", func() bool { return sent.Load() > drained+10 })
			close(leave) // all API servers have noticed that it stops
			clients.Wait()
			testkit.Eventually(t, "it listens no longer", func() bool {
				conn, err := net.Dial("tcp", w.Addr)
				if err == nil {
					_ = conn.Close()
				}
				return err != nil
			})
			close(release)
			if err := <-patched; err != nil {
				t.Errorf("the request in flight: %v", err)
			}
		})
	}
}

func post(client *http.Client, addr string, body []byte, protocol, want string) error {
	answer, err := client.Post("https://"+addr+"/pods/enabled", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(answer.Body)
	switch {
	case err != nil:
		return err
	case answer.Proto != protocol:
		return fmt.Errorf("got %s, want %s", answer.Proto, protocol)
	case !strings.Contains(string(text), want):
		return fmt.Errorf("got %d: %s", answer.StatusCode, text)
	}
	return nil
}
