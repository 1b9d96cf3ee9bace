// Package sidecar copies the user's Prometheus configuration to the directory that
// Prometheus reads. It adds the block of a destination while a valid session for it
// exists, and removes the block when the session ends.
//
// It is built so that Prometheus never depends on AWS, nor on the sidecar
// doing well. What Prometheus sees is either the user's own configuration to
// the byte, or that configuration with blocks whose credentials already lie in
// the credentials file. Whatever fails is logged, counted and tried again. Two
// things end [Run]: the end of its context, and a first configuration that
// cannot be served at all, for which the pod waits.
//
// Nothing hangs for long. An edit that takes too long goes on beside the loop,
// and the user's own configuration is served meanwhile (editor.go). A loop that
// does not move loses its heartbeat, and the liveness probe restarts the
// process (watchdog.go).
//
//	         session (one goroutine per destination)
//	STS ───► renew ─► credentials file ──► result ─┐
//	                                               ▼
//	source directory ──(poll)────────────────► loop ──► target directory
//
// A pod whose Prometheus reads its configuration only when it starts is the one
// exception: there Prometheus calls STS itself, and the sidecar gives it the
// block while STS provably answers. See startonly.go, and watch.go for what is
// seen of Prometheus.
//
// Package mirror copies the files, package session gets and keeps the
// sessions, package promconfig edits the YAML tree.
package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// DefaultMetricsAddress is where metrics and status are served, unless the config
// names another port.
var DefaultMetricsAddress = fmt.Sprintf(":%d", sidecarconfig.DefaultMetricsPort)

const (
	// firstWait is how long the first configuration is held back for the first
	// sessions: a good start needs no reload, and a bad one costs Prometheus no
	// more than this.
	firstWait = 3 * time.Second
	// poll is how often the source is looked at. That costs a few system calls,
	// works on every volume, and cannot run out as inotify's watches can.
	poll = 400 * time.Millisecond
	// pause follows a failure of the loop's own work.
	pause = 2 * time.Second
)

// Options is what a sidecar is told from outside.
type Options struct {
	// Config is an encoded [sidecarconfig.Config]. If it cannot be decoded, the
	// source is mirrored as it is.
	Config string
	// Pod and Namespace go into the name of the role session.
	Pod, Namespace string
	// Source and Target are the directories to use without a config, and
	// Credentials is the directory that holds the heartbeat then. Empty: none.
	Source, Target, Credentials string
	// MetricsAddress is where to listen. Empty: no metrics.
	MetricsAddress string
	// MemoryLimit is what the process may use, in bytes; 0: as much as it likes.
	// A configuration that cannot be edited within it is mirrored as it is.
	MemoryLimit int64
	Log         *slog.Logger
}

// FromEnvironment reads what the webhook put into the container.
func FromEnvironment(getenv func(string) string) Options {
	return Options{
		Config: getenv(sidecarconfig.Variable),
		Pod:    getenv(sidecarconfig.PodNameVariable), Namespace: getenv(sidecarconfig.PodNamespaceVariable),
		Source: sidecarconfig.SourceDir, Target: sidecarconfig.TargetDir, Credentials: sidecarconfig.CredentialsDir,
		MetricsAddress: DefaultMetricsAddress, MemoryLimit: MemoryLimit(),
	}
}

// decode returns the config, or the one that changes nothing.
func (o Options) decode() (sidecarconfig.Config, error) {
	c, err := sidecarconfig.Decode(o.Config)
	if err != nil {
		return sidecarconfig.Config{Source: o.Source, Target: o.Target, MetricsPort: sidecarconfig.NoMetrics}, err
	}
	return c, nil
}

// Ready reports whether the target holds a configuration, so that the pod's other
// containers may start.
func Ready(o Options) error {
	c, _ := o.decode() // Run has logged it
	if !mirror.Served(c.Target) {
		return errors.New(c.Target + " holds no configuration yet")
	}
	return nil
}

// Run works until its context ends, and returns nil. It returns an error that names the
// fix where the first configuration cannot be served.
func Run(outer context.Context, o Options) error {
	s := newServer(o)
	ctx, end := context.WithCancelCause(outer)
	defer end(nil)
	s.end = end
	var group sync.WaitGroup
	start := func(name string, work func(context.Context)) {
		group.Go(func() { s.persist(ctx, name, work) })
	}
	for _, d := range s.destinations {
		renew := s.renew
		if s.startOnly() {
			renew = s.prove
		}
		start("session "+d.Name, func(ctx context.Context) { renew(ctx, d) })
	}
	if s.watches() {
		start("Prometheus", s.watch)
	}
	if address := s.metricsAddress(o.MetricsAddress); address != "" {
		start("metrics", func(ctx context.Context) { s.serveMetrics(ctx, address) })
	}
	if heartbeat := o.heartbeat(); heartbeat != "" {
		start("watchdog", func(ctx context.Context) { s.watchdog(ctx, heartbeat) })
	}
	start("configuration", s.loop)
	group.Wait()
	if outer.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// persist does work until it returns on its own. After a panic it logs, and does the
// work again.
func (s *server) persist(ctx context.Context, name string, work func(context.Context)) {
	for {
		if survived(func() { work(ctx) }, func(recovered any, stack []byte) {
			s.log.Error("recovered from panic, restarting", "in", name, "panic", recovered, "stack", string(stack))
		}) {
			return
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// survived calls work, and calls report if work panics.
func survived(work func(), report func(recovered any, stack []byte)) (ok bool) {
	defer func() {
		if recovered := recover(); recovered != nil {
			report(recovered, debug.Stack())
		}
	}()
	work()
	return true
}

// sleep returns false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

func newServer(o Options) *server {
	s := &server{
		log:      o.Log,
		started:  time.Now(),
		results:  make(chan result),
		changed:  make(chan struct{}, 1),
		editor:   editor{limit: editLimit},
		headroom: headroomFor(o.MemoryLimit),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.config, err = o.decode(); err != nil {
		s.log.Error("cannot read the sidecar config: Prometheus's configuration is mirrored as it is", "error", err)
	}
	for _, p := range s.config.MountPoints {
		s.mountPoints = append(s.mountPoints, mirror.MountPoint(p))
	}
	s.metrics = newMetrics(s)
	if len(s.config.Destinations) == 0 {
		return s
	}
	s.sessions = session.Options{
		Token: s.config.Token, Name: session.Name(s.config.Cluster, o.Namespace, o.Pod), Seconds: s.config.SessionSeconds,
		Endpoint: s.config.STS.Endpoint, ProxyURL: s.config.STS.ProxyURL, CABundle: s.config.STS.CABundle,
	}
	if s.startOnly() {
		s.sessions.Seconds = proofSeconds
		s.recall()
	} else {
		mode := fs.FileMode(0o644)
		if s.config.Private {
			mode = 0o600
		}
		if s.store, err = session.OpenStore(s.config.Credentials, mode); err != nil {
			s.log.Warn("the credentials of an earlier run cannot be read", "error", err)
		}
	}
	s.client, s.clientErr = session.NewClient(s.sessions)
	for _, configured := range s.config.Destinations {
		d := &destination{Destination: configured, block: configured.For(o.Pod), proving: s.startOnly(), changed: make(chan struct{}, 1)}
		if !slices.Contains(s.loaded, d.Name) {
			d.out = s.started
		}
		if !d.proving {
			d.session = s.store.Session(d.profile())
		}
		s.destinations = append(s.destinations, d)
	}
	return s
}
