package sidecarfaults_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// patience is how long a test waits for what must come; nothing is asserted by
// it.
const patience = time.Minute

// subject is one Prometheus under test.
type subject struct {
	*testing.T
	stage *env.Stage
	pod   *corev1.Pod
	run   *kubelet.Pod
}

// create makes a pod whose Prometheus scrapes itself under a job of the pod's
// name, without running it.
func create(t *testing.T, s *env.Stage, name string, change func(*corev1.Pod)) *subject {
	t.Helper()
	pod, err := s.Create(t.Context(), env.Chart{Name: name, Config: config(name), Change: change})
	if err != nil {
		t.Fatal(err)
	}
	if !env.Injected(pod) {
		t.Fatalf("%s was not injected", name)
	}
	return &subject{T: t, stage: s, pod: pod}
}

// start creates a pod and runs it; it ends with the row.
func start(t *testing.T, s *env.Stage, name string, change func(*corev1.Pod)) *subject {
	t.Helper()
	p := create(t, s, name, change)
	p.begin()
	return p
}

func (p *subject) begin() {
	p.Helper()
	var err error
	if p.run, err = p.stage.Run(p.Context(), p.pod, nil); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		if p.Failed() {
			p.Log(p.run.Describe())
		}
		if err := p.run.Close(); err != nil {
			p.Error(err)
		}
	})
}

func config(job string) string {
	return fmt.Sprintf(`global: {scrape_interval: 1s}
scrape_configs:
- job_name: %s
  static_configs: [{targets: ["127.0.0.1:%%PORT%%"]}]
`, job)
}

func (p *subject) server() *kubelet.Container  { return p.run.Container("prometheus-server") }
func (p *subject) sidecar() *kubelet.Container { return p.run.Container(inject.ContainerSidecar) }

func (p *subject) await(what string, condition func() bool) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), patience)
	defer cancel()
	if err := p.run.Await(ctx, p.pod.Name+": "+what, condition); err != nil {
		p.Fatal(err)
	}
}

func (p *subject) ready() {
	p.Helper()
	p.await("Prometheus to be ready", func() bool { return env.Ready(p.Context(), p.pod) })
}

// block tells whether the destination's block is in the configuration that
// Prometheus has applied. Where Prometheus does not answer, neither is known.
func (p *subject) block() (in, known bool) {
	applied := env.LoadedConfig(p.Context(), p.pod)
	return strings.Contains(applied, "ampbridge-central"), applied != ""
}

func (p *subject) hasBlock() bool {
	in, known := p.block()
	return in && known
}

func (p *subject) lacksBlock() bool {
	in, known := p.block()
	return !in && known
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

// flowing waits until two more samples have arrived.
func (p *subject) flowing() {
	p.Helper()
	before := p.arrived()
	p.await("samples in the workspace", func() bool { return p.arrived() >= before+2 })
}

// unharmed fails the row if Prometheus is not ready, ever restarted, or refused
// a configuration.
func (p *subject) unharmed() {
	p.Helper()
	if !env.Ready(p.Context(), p.pod) {
		p.Errorf("%s: Prometheus is not ready", p.pod.Name)
	}
	if n := p.server().Restarts(); n != 0 {
		p.Errorf("%s: Prometheus restarted %d times; exit codes %v", p.pod.Name, n, p.server().ExitCodes())
	}
	if v, ok := env.Metric(p.Context(), p.pod, "prometheus_config_last_reload_successful"); !ok || v != 1 {
		p.Errorf("%s: prometheus_config_last_reload_successful = %v", p.pod.Name, v)
	}
	logs := p.server().Logs() + p.run.Container("prometheus-server-configmap-reload").Logs()
	for _, bad := range []string{"panic:", "Error reloading config", "Error loading config", "Failed to apply configuration"} {
		if strings.Contains(logs, bad) {
			p.Errorf("%s: the log says %q", p.pod.Name, bad)
		}
	}
}

// held fails the row if Prometheus was started in spite of its sidecar.
func (p *subject) held() {
	p.Helper()
	if p.server().Running() || p.server().Restarts() > 0 || len(p.server().ExitCodes()) > 0 {
		p.Errorf("%s: Prometheus was started, although its sidecar never was", p.pod.Name)
	}
}
