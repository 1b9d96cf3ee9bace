package env

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The names of the containers in the pod of a [Chart].
const (
	ServerContainer   = "prometheus-server"
	ReloaderContainer = "prometheus-server-configmap-reload"
)

// Prometheus is one Prometheus pod: the object in the API server and the processes that run it. The demo and
// the end-to-end tests share it.
//
// Methods with a context return a result or an error. Methods with a test fail that test.
type Prometheus struct {
	// Object is the pod as the API server stored it after admission.
	Object *corev1.Pod
	// Pod is the current run; nil before the first run.
	Pod *kubelet.Pod

	env *Env
}

// CreatePrometheus creates the pod that c describes, and its ConfigMap. It does not run the pod.
func (e *Env) CreatePrometheus(ctx context.Context, c Chart) (*Prometheus, error) {
	pod, err := e.Create(ctx, c)
	if err != nil {
		return nil, err
	}
	return e.PrometheusOf(pod), nil
}

// PrometheusOf returns the Prometheus of an existing pod. Its port is known if [Env.Create], [Ports.Move] or
// [SetPort] recorded it.
func (e *Env) PrometheusOf(pod *corev1.Pod) *Prometheus { return &Prometheus{Object: pod, env: e} }

// StartPrometheus creates the pod that c describes and runs it until the test ends.
func (e *Env) StartPrometheus(tb testing.TB, c Chart) *Prometheus {
	tb.Helper()
	p, err := e.CreatePrometheus(tb.Context(), c)
	testkit.Must(tb, err)
	p.StartFor(tb)
	return p
}

// StartFor runs the pod until the test ends. If the test fails, it logs the state of all containers.
func (p *Prometheus) StartFor(tb testing.TB) {
	tb.Helper()
	testkit.Must(tb, p.Start(tb.Context(), nil))
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log(p.Pod.Describe())
		}
		p.Stop(tb)
	})
}

// Start runs the pod. After [Prometheus.Close] it runs the same pod again, as after a restart of the node.
// log may be nil, see [kubelet.Options].
func (p *Prometheus) Start(ctx context.Context, log io.Writer) (err error) {
	p.Pod, err = p.env.Run(ctx, p.Object, log)
	return err
}

// Stop ends the current run. It may be called more than once.
func (p *Prometheus) Stop(tb testing.TB) {
	tb.Helper()
	if err := p.Close(); err != nil {
		tb.Error(err)
	}
}

// Close ends the current run, if there is one. It may be called more than once.
func (p *Prometheus) Close() error {
	if p.Pod == nil {
		return nil
	}
	return p.Pod.Close()
}

// Server returns the container of Prometheus; nil if the pod was not created from a [Chart].
func (p *Prometheus) Server() *kubelet.Container { return p.Pod.Container(ServerContainer) }

// Sidecar returns the container of the config sidecar; nil if the pod is not injected.
func (p *Prometheus) Sidecar() *kubelet.Container {
	return p.Pod.Container(sidecarconfig.ContainerName)
}

// WaitFor waits until the condition holds. After [testkit.Timeout], or if the pod ends first, it returns an
// error with the state of all containers.
func (p *Prometheus) WaitFor(ctx context.Context, what string, condition func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, testkit.Timeout)
	defer cancel()
	return p.Pod.Eventually(ctx, p.Object.Name+": "+what, condition)
}

// Eventually waits like [Prometheus.WaitFor]. On an error it fails the test.
func (p *Prometheus) Eventually(tb testing.TB, what string, condition func() bool) {
	tb.Helper()
	testkit.Must(tb, p.WaitFor(tb.Context(), what, condition))
}

// EventuallyReady waits until Prometheus is ready. It returns the time since begun.
func (p *Prometheus) EventuallyReady(tb testing.TB, begun time.Time) time.Duration {
	tb.Helper()
	p.Eventually(tb, "Prometheus to be ready", func() bool { return Ready(tb.Context(), p.Object) })
	return time.Since(begun)
}

// HasBlock reports whether the configuration that Prometheus has applied contains the block of destination
// central. It is false while Prometheus does not answer.
func (p *Prometheus) HasBlock(ctx context.Context) bool {
	return strings.Contains(LoadedConfig(ctx, p.Object), "ampbridge-central")
}

// LacksBlock reports whether the configuration that Prometheus has applied does not contain that block. It is
// false while Prometheus does not answer.
func (p *Prometheus) LacksBlock(ctx context.Context) bool {
	applied := LoadedConfig(ctx, p.Object)
	return applied != "" && !strings.Contains(applied, "ampbridge-central")
}

// Writes reports whether the running Prometheus has any remote_write.
func (p *Prometheus) Writes(ctx context.Context) bool {
	_, has := Metric(ctx, p.Object, `prometheus_remote_storage_shards{`)
	return has
}

// ScrapeSelf returns a configuration with which Prometheus scrapes itself every second, as the given job.
// more is added at the end.
func ScrapeSelf(job, more string) string {
	return fmt.Sprintf(`global: {scrape_interval: 1s}
scrape_configs:
- job_name: %s
  static_configs: [{targets: ["127.0.0.1:%%PORT%%"]}]
%s`, job, more)
}

// Arrived returns how many samples of `up` the workspace has for the job with the pod's name, see
// [ScrapeSelf].
func (p *Prometheus) Arrived(tb testing.TB) int {
	tb.Helper()
	promql := fmt.Sprintf(`sum(count_over_time(up{job=%q}[1h]))`, p.Object.Name)
	samples, err := p.env.Cloud.Query(tb.Context(), p.env.Workspace.ID, promql)
	testkit.Must(tb, err)
	if len(samples) == 0 {
		return 0
	}
	return int(samples[0].Value)
}

// EventuallyArrives waits until two more of these samples have arrived.
func (p *Prometheus) EventuallyArrives(tb testing.TB) {
	tb.Helper()
	before := p.Arrived(tb)
	p.Eventually(tb, "samples in the workspace", func() bool { return p.Arrived(tb) >= before+2 })
}

// CheckUnharmed fails the test in three cases: Prometheus is not ready, it was restarted more or fewer times
// than by the test, or it refused a configuration at any time.
func (p *Prometheus) CheckUnharmed(tb testing.TB, restarts int) {
	tb.Helper()
	name := p.Object.Name
	if !Ready(tb.Context(), p.Object) {
		tb.Errorf("%s: Prometheus is not ready", name)
	}
	if n := p.Server().Restarts(); n != restarts {
		tb.Errorf("%s: Prometheus restarted %d times, want %d; exit codes %v", name, n, restarts, p.Server().ExitCodes())
	}
	p.CheckLoaded(tb)
	logs := p.Server().Logs()
	if reloader := p.Pod.Container(ReloaderContainer); reloader != nil {
		logs += reloader.Logs()
	}
	for _, bad := range []string{"panic:", "Error reloading config", "Error loading config", "Failed to apply configuration"} {
		if strings.Contains(logs, bad) {
			tb.Errorf("%s: the log contains %q", name, bad)
		}
	}
}

// CheckLoaded fails the test if Prometheus refused the latest configuration.
func (p *Prometheus) CheckLoaded(tb testing.TB) {
	tb.Helper()
	if v, ok := Metric(tb.Context(), p.Object, "prometheus_config_last_reload_successful"); !ok || v != 1 {
		tb.Errorf("%s: prometheus_config_last_reload_successful = %v", p.Object.Name, v)
	}
}
