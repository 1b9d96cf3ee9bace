// Package safety_test plays what AWS can do to a Prometheus, and shows that it
// never notices: STS refused, denying, hanging or broken, at the start and
// later, with reloads all the time. The last test does the same to a Prometheus
// that was set up by hand, so that everyone sees why the sidecar exists.
package safety_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
)

func TestMain(m *testing.M) {
	kubelet.Init()
	os.Exit(m.Run())
}

// patience is how long a test waits for what must come; nothing is asserted by
// it.
const patience = 90 * time.Second

// faults are what STS can do. Each call starts one, and returns what ends it.
var faults = []struct {
	name  string
	start func(*env.Stage) (stop func())
}{
	{"refused", func(s *env.Stage) func() { return s.Cloud.Fail("sts:*", awstest.Refuse).Stop }},
	{"denying", func(s *env.Stage) func() { return s.Cloud.Fail("sts:*", awstest.Deny).Stop }},
	{"hanging", func(s *env.Stage) func() { return s.Cloud.Fail("sts:*", awstest.Hang).Stop }},
	{"5xx", func(s *env.Stage) func() { return s.Cloud.Fail("sts:*", awstest.ServerError).Stop }},
}

// scene is a stage whose trust is in place.
func scene(t *testing.T) *env.Stage {
	t.Helper()
	s := env.Start(t, env.Options{})
	if out, err := s.Sync(t.Context()); err != nil {
		t.Fatal(out, err)
	}
	return s
}

// subject is one Prometheus under test.
type subject struct {
	*testing.T
	stage *env.Stage
	pod   *corev1.Pod
	run   *kubelet.Pod
}

// start creates a pod and runs it; it ends with the test.
func start(t *testing.T, s *env.Stage, c env.Chart) *subject {
	t.Helper()
	pod, err := s.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	run, err := s.Run(t.Context(), pod, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(run.Describe())
		}
		if err := run.Close(); err != nil {
			t.Error(err)
		}
	})
	return &subject{t, s, pod, run}
}

func (p *subject) server() *kubelet.Container { return p.run.Container("prometheus-server") }

func (p *subject) await(what string, condition func() bool) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	if err := p.run.Await(ctx, what, condition); err != nil {
		p.Fatal(err)
	}
}

// ready waits for the server, and returns how long it took since begun.
func (p *subject) ready(begun time.Time) time.Duration {
	p.Helper()
	p.await("Prometheus to be ready", func() bool { return env.Ready(p.Context(), p.pod) })
	return time.Since(begun)
}

// arrived is how many samples of the subject's own `up` the workspace holds.
func (p *subject) arrived() int {
	p.Helper()
	samples, err := p.stage.Cloud.Query(p.Context(), p.stage.Workspace.ID, fmt.Sprintf(`sum(count_over_time(up{job=%q}[1h]))`, p.pod.Name))
	if err != nil {
		p.Fatal(err)
	}
	if len(samples) == 0 {
		return 0
	}
	return int(samples[0].Value)
}

// scraped is how many samples of its own `up` the subject took since a time.
func (p *subject) scraped(since time.Time) int {
	p.Helper()
	v, _ := env.Value(p.Context(), p.pod, fmt.Sprintf(`sum(count_over_time(up{job=%q}[%ds]))`, p.pod.Name, int(time.Since(since).Seconds())))
	return int(v)
}

// unharmed fails the test if Prometheus ever restarted, or refused a
// configuration.
func (p *subject) unharmed(restarts int) {
	p.Helper()
	if n := p.server().Restarts(); n != restarts {
		p.Errorf("Prometheus restarted %d times, want %d; exit codes %v", n, restarts, p.server().ExitCodes())
	}
	if v, ok := env.Metric(p.Context(), p.pod, "prometheus_config_last_reload_successful"); !ok || v != 1 {
		p.Errorf("prometheus_config_last_reload_successful = %v", v)
	}
	logs := p.server().Logs() + p.run.Container("prometheus-server-configmap-reload").Logs()
	for _, bad := range []string{"panic:", "Error reloading config", "Error loading config", "Failed to apply configuration"} {
		if strings.Contains(logs, bad) {
			p.Errorf("the log says %q", bad)
		}
	}
}

// failed is how many samples Prometheus gave up on, towards the workspace.
func (p *subject) failed() float64 {
	p.Helper()
	var sum float64
	for _, metric := range []string{"failed", "dropped"} {
		v, _ := env.Metric(p.Context(), p.pod, fmt.Sprintf(`prometheus_remote_storage_samples_%s_total{remote_name="ampbridge-central"`, metric))
		sum += v
	}
	return sum
}

// config scrapes the server itself under a job of the pod's name.
func config(job, more string) string {
	return fmt.Sprintf(`global: {scrape_interval: 1s}
scrape_configs:
- job_name: %s
  static_configs: [{targets: ["127.0.0.1:%%PORT%%"]}]
%s`, job, more)
}

// sink is a remote_write receiver of the user's own.
func sink(t *testing.T) (url string, received *atomic.Int64) {
	received = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		received.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}
