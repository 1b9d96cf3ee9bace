package relay_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// prometheusProcess is a real Prometheus that scrapes itself every half second and writes to a
// relay.
type prometheusProcess struct {
	url string
	log *testkit.Buffer
}

func startPrometheus(t *testing.T, writeURL, passwordFile string) *prometheusProcess {
	t.Helper()
	dir, address := t.TempDir(), testkit.FreeAddr(t)
	config := fmt.Sprintf(`
global: {scrape_interval: 500ms}
scrape_configs:
- {job_name: self, static_configs: [{targets: [%q]}]}
remote_write:
- url: %q
  basic_auth: {username: %s, password_file: %q}
  queue_config: {batch_send_deadline: 500ms, max_backoff: 1s}
`, address, writeURL, policy.RelayUser, passwordFile)
	file := filepath.Join(dir, "prometheus.yml")
	testkit.WriteFile(t, file, config)
	p := &prometheusProcess{"http://" + address, &testkit.Buffer{}}
	cmd := exec.Command(tools.Path(t, "prometheus"), "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"),
		"--web.listen-address="+address)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			t.Logf("Prometheus ended with %v\n%s", err, p.log)
		}
	})
	testkit.Eventually(t, "Prometheus is ready", func() bool {
		response, err := http.Get(p.url + "/-/ready")
		if err != nil {
			return false
		}
		return response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
	return p
}

// query returns the value of an expression with one result; 0: there is none.
func (p *prometheusProcess) query(t *testing.T, expression string, at time.Time) float64 {
	t.Helper()
	response, err := http.Get(p.url + "/api/v1/query?" + url.Values{
		"query": {expression}, "time": {strconv.FormatInt(at.Unix(), 10)},
	}.Encode())
	testkit.Must(t, err)
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	testkit.Must(t, json.NewDecoder(response.Body).Decode(&answer))
	if len(answer.Data.Result) == 0 {
		return 0
	}
	value, err := strconv.ParseFloat(answer.Data.Result[0].Value[1].(string), 64)
	testkit.Must(t, err)
	return value
}

// TestPrometheusLosesNothing: the relay has no session at first and is killed several times. Its
// session rotates, is missing for a while, and AMP has each temporary fault. In the end the
// workspace has every sample that Prometheus scraped.
func TestPrometheusLosesNothing(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")})
	account := cloud.Account("111122223333")
	workspace := account.CreateWorkspace(region, "")
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CA)
	dir := t.TempDir()
	secret, err := relay.Password(dir, 0o400)
	testkit.Must(t, err)
	var current atomic.Pointer[session.Session]
	current.Store(&session.Session{})
	// For Prometheus, each run is a new process.
	run := func() (address string, kill func()) {
		r, err := relay.New(relay.Options{
			Destinations: []relay.Destination{{
				Name: "central", Path: centralPath, URL: workspace.RemoteWriteURL(cloud.TLSURL),
				Region: region, RetryOn429: true,
			}},
			Password:  func() string { return secret },
			Session:   func(string) session.Session { return *current.Load() },
			Transport: relay.NewTransport(nil, roots),
			Bounds:    relay.Bounds{Forward: 2 * time.Second},
		})
		testkit.Must(t, err)
		l, err := relay.Listen(dir)
		testkit.Must(t, err)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = r.Serve(ctx, l, 0) // it is cut off, which is what it says
		}()
		return l.Addr().String(), func() {
			stop()
			<-ended
		}
	}
	address, kill := run()
	begin := time.Now()
	p := startPrometheus(t, "http://"+address+centralPath, relay.PasswordFile(dir))
	time.Sleep(2 * time.Second) // without a session

	user, err := account.PutUser("next", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`)
	testkit.Must(t, err)
	current.Store(new(sessionOf(account.AdminCredentials())))
	for n, fault := range []awstest.Fault{
		awstest.Throttle, awstest.Refuse, awstest.ServerError, awstest.Hang, awstest.Lose,
		awstest.Respond(http.StatusForbidden, "ExpiredTokenException", "The security token included in the request is expired"),
	} {
		injection := cloud.Fail("aps:RemoteWrite", fault)
		time.Sleep(1500 * time.Millisecond)
		kill()
		time.Sleep(500 * time.Millisecond)
		injection.Stop()
		if n%2 == 0 {
			current.Store(new(sessionOf(user)))
		} else {
			current.Store(&session.Session{})
			time.Sleep(time.Second)
			current.Store(new(sessionOf(account.AdminCredentials())))
		}
		again, next := run()
		if again != address {
			t.Fatalf("the relay is at %s after a restart, at %s before", again, address)
		}
		kill = next
		time.Sleep(time.Second)
	}
	defer func() { kill() }()

	// Compare everything up to now in both. Compare one metric at a time, because without their
	// names the series of several metrics would be the same.
	until := time.Now()
	window := fmt.Sprintf(`[%ds] @ %d`, int(until.Sub(begin).Seconds()), until.Unix())
	for _, name := range []string{"up", "go_goroutines", "prometheus_http_requests_total", "prometheus_engine_query_duration_seconds"} {
		samples := `sum(count_over_time(` + name + window + `))`
		want := p.query(t, samples, until)
		if want < 20 {
			t.Fatalf("Prometheus has %v samples of %s only", want, name)
		}
		var got float64
		testkit.Eventually(t, "every sample of "+name+" is in the workspace", func() bool {
			stored, err := cloud.Query(t.Context(), workspace.ID, samples)
			if err != nil || len(stored) == 0 {
				return false
			}
			got = stored[0].Value
			return got >= want
		})
		if got != want {
			t.Errorf("%s: %v samples in the workspace, %v scraped", name, got, want)
		}
		t.Logf("%s: %v samples, all in the workspace", name, got)
	}
	// prometheus_remote_storage_samples_failed_total does not show losses: a write that AMP stored
	// without an answer is sent again, and is then out of order.
	if n := p.query(t, `sum(prometheus_remote_storage_samples_dropped_total)`, time.Now()); n != 0 {
		t.Errorf("%v samples dropped", n)
	}
}
