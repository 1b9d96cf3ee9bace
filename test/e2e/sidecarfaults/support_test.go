package sidecarfaults_test

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// subject is one Prometheus under test.
type subject struct {
	*testing.T
	*env.Prometheus
}

// create creates a pod with a Prometheus that scrapes itself, with the pod's name as job. It does not run the
// pod.
func create(t *testing.T, e *env.Env, name string, change func(*corev1.Pod)) *subject {
	t.Helper()
	p, err := e.CreatePrometheus(t.Context(), env.Chart{Name: name, Config: env.ScrapeSelf(name, ""), Change: change})
	testkit.Must(t, err)
	if !env.Injected(p.Object) {
		t.Fatalf("%s was not injected", name)
	}
	return &subject{t, p}
}

// start creates a pod and runs it until the row ends.
func start(t *testing.T, e *env.Env, name string, change func(*corev1.Pod)) *subject {
	t.Helper()
	p := create(t, e, name, change)
	p.StartFor(t)
	return p
}

func (p *subject) eventually(what string, condition func() bool) {
	p.Helper()
	p.Eventually(p.T, what, condition)
}

func (p *subject) ready() {
	p.Helper()
	p.EventuallyReady(p.T, time.Now())
}

func (p *subject) hasBlock() bool { return p.HasBlock(p.Context()) }

// relays reports whether Prometheus has the relay's block.
func (p *subject) relays() bool {
	return strings.Contains(env.LoadedConfig(p.Context(), p.Object), "password_file: ")
}

// flowing waits until two more samples have arrived.
func (p *subject) flowing() {
	p.Helper()
	p.EventuallyArrives(p.T)
}

// unharmed fails the row if Prometheus is not ready, was restarted, or refused a configuration.
func (p *subject) unharmed() {
	p.Helper()
	p.CheckUnharmed(p.T, 0)
}

// held fails the row if Prometheus was started without its sidecar.
func (p *subject) held() {
	p.Helper()
	if p.Server().Running() || p.Server().Restarts() > 0 || len(p.Server().ExitCodes()) > 0 {
		p.Errorf("%s: Prometheus was started, although its sidecar never was", p.Object.Name)
	}
}
