// Package matrix_test prints the safety matrix: each fault of STS, at each
// moment of a pod's life, for both generations of the AWS SDK and both ways to
// serve a pod. A row that harms Prometheus fails the test.
//
//	go test ./test/e2e/matrix -v
package matrix_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
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

var faults = []struct {
	name  string
	fault awstest.Fault
}{{"refused", awstest.Refuse}, {"denying", awstest.Deny}, {"hanging", awstest.Hang}, {"5xx", awstest.ServerError}}

var versions = []struct{ version, tool, tag string }{
	{"3.15", "prometheus", "v3.15.0"}, {"3.1", "prometheus-3.1", "v3.1.0"},
}

// kinds are the two ways to serve a pod. What a start may cost is the second
// promise's price: a pod that nothing reloads has to call STS by itself.
var kinds = []struct {
	name         string
	failedStarts int
}{{"reloadable", 0}, {"start-only", 1}}

// events are the moments, in the matrix's order.
var events = []string{"renewal", "reload", "container restart", "start", "pod restart"}

// row is one version, kind and fault, with a cell for each event.
type row struct {
	version, kind, fault string
	cells                map[string]string
}

func TestSafetyMatrix(t *testing.T) {
	var mu sync.Mutex
	var rows []row
	t.Run("rows", func(t *testing.T) {
		for _, v := range versions {
			t.Run(v.version, func(t *testing.T) {
				t.Parallel()
				e := env.Start(t, env.Options{})
				// Half a minute, so that a renewal falls into every fault.
				e.Cloud.SetSessionLife(30 * time.Second)
				if out, err := e.Sync(t.Context()); err != nil {
					t.Fatal(out, err)
				}
				if err := e.AddPrometheus(t.Context(), v.tool, v.tag); err != nil {
					t.Fatal(err)
				}
				for _, kind := range kinds {
					found := play(t, e, v.version, v.tag, kind.name, kind.failedStarts)
					mu.Lock()
					rows = append(rows, found...)
					mu.Unlock()
				}
			})
		}
	})
	t.Log("\n" + table(rows))
}

func table(rows []row) string {
	var b strings.Builder
	b.WriteString("| Prometheus | kind | STS | " + strings.Join(events, " | ") + " |\n" + strings.Repeat("| --- ", 3+len(events)) + "|\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s", r.version, r.kind, r.fault)
		for _, e := range events {
			b.WriteString(" | " + r.cells[e])
		}
		b.WriteString(" |\n")
	}
	return b.String()
}

// subject is one Prometheus under test.
type subject struct {
	*testing.T
	*env.Prometheus
	allowed int // failed starts of an event
}

// play runs all faults over one version and kind.
func play(t *testing.T, e *env.Env, version, tag, kind string, allowed int) []row {
	name := strings.ReplaceAll(kind+"-"+version, ".", "-")
	p := create(t, e, name, tag, kind, allowed)
	p.ready(time.Now())
	var rows []row
	for i, f := range faults {
		p.settled(kind)
		injection := e.Cloud.Fail("sts:*", f.fault)
		r := row{version, kind, f.name, map[string]string{}}
		r.cells["renewal"] = p.renewal(injection)
		r.cells["reload"] = "nothing reloads"
		if kind == "reloadable" {
			r.cells["reload"] = p.reload()
		}
		r.cells["container restart"] = p.container()
		fresh := create(t, e, fmt.Sprintf("%s-%d", name, i), tag, kind, allowed)
		r.cells["start"] = fresh.outcome(fresh.ready(time.Now()), 0)
		fresh.Stop(t)
		r.cells["pod restart"] = p.again()
		injection.Stop()
		rows = append(rows, r)
	}
	p.settled(kind)
	p.Stop(t)
	return rows
}

// create makes a pod and runs it.
func create(t *testing.T, e *env.Env, name, tag, kind string, allowed int) *subject {
	t.Helper()
	p, err := e.CreatePrometheus(t.Context(), env.Chart{Name: name, Config: env.SelfScrape, Change: func(pod *corev1.Pod) {
		pod.Spec.Containers[1].Image = "quay.io/prometheus/prometheus:" + tag
		if kind == "start-only" {
			pod.Spec.Containers = pod.Spec.Containers[1:]
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if !env.Injected(p.Object) {
		t.Fatalf("%s was not injected", name)
	}
	p.StartFor(t)
	return &subject{T: t, Prometheus: p, allowed: allowed}
}

func (p *subject) eventually(what string, condition func() bool) {
	p.Helper()
	p.Eventually(p.T, what, condition)
}

func (p *subject) ready(begun time.Time) time.Duration {
	p.Helper()
	return p.EventuallyReady(p.T, begun)
}

// settled waits until all is well, so that each fault meets a Prometheus that
// has something to lose.
func (p *subject) settled(kind string) {
	p.Helper()
	p.ready(time.Now())
	if kind == "reloadable" {
		p.eventually("the block", func() bool { return p.HasBlock(p.Context()) })
	}
}

// outcome is a cell, after an event that began with so many restarts.
func (p *subject) outcome(took time.Duration, restarts int) string {
	p.Helper()
	failed := p.Server().Restarts() - restarts
	if failed > p.allowed {
		p.Errorf("%s: %d failed starts, at most %d; exit codes %v", p.Object.Name, failed, p.allowed, p.Server().ExitCodes())
	}
	if strings.Contains(p.Server().Logs(), "panic:") {
		p.Errorf("%s panicked", p.Object.Name)
	}
	if failed > 0 {
		return fmt.Sprintf("ready after %.1f s, %d failed start", took.Seconds(), failed)
	}
	return fmt.Sprintf("ready after %.1f s", took.Seconds())
}

// renewal waits until the fault has struck attempts at a session.
func (p *subject) renewal(injection *awstest.Injection) string {
	p.Helper()
	before := p.Server().Restarts()
	p.eventually("an attempt at a session that fails", func() bool { return injection.Hits() >= 2 })
	if !env.Ready(p.Context(), p.Object) || p.Server().Restarts() != before {
		p.Errorf("%s is not as it was after failed renewals", p.Object.Name)
	}
	return "unharmed"
}

func (p *subject) reload() string {
	p.Helper()
	failed := 0
	for range 4 {
		if err := env.Reload(p.Context(), p.Object); err != nil {
			failed++
			p.Errorf("%s: %v", p.Object.Name, err)
		}
		time.Sleep(300 * time.Millisecond)
	}
	return fmt.Sprintf("%d of 4 failed", failed)
}

func (p *subject) container() string {
	p.Helper()
	before, killed := p.Server().Restarts(), time.Now()
	if err := p.Server().Kill(syscall.SIGKILL); err != nil {
		p.Fatal(err)
	}
	p.eventually("the container to be started again", func() bool { return p.Server().Restarts() > before })
	return p.outcome(p.ready(killed), before+1)
}

// again runs the same pod once more, as after a node's reboot.
func (p *subject) again() string {
	p.Helper()
	p.Stop(p.T)
	begun := time.Now()
	if err := p.Start(p.Context(), nil); err != nil {
		p.Fatal(err)
	}
	return p.outcome(p.ready(begun), 0)
}
