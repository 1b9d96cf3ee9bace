// Package sidecar gives Prometheus its configuration with the block of each
// destination, gets the sessions for the destinations, and relays what Prometheus writes.
//
// Prometheus never depends on AWS, nor on a working sidecar.
// It reads the user's own configuration with blocks that cannot fail to
// load. With a relay block, samples wait in Prometheus's WAL while there is no
// session. A block with sigv4 is added only when its session is in the credentials file.
// The sidecar logs and counts every failure, and tries again. Only two things end [Run]: the end of
// its context, and a first configuration that cannot be served at all, because the
// pod waits for that.
//
// Nothing blocks for long. An edit that takes too long continues in parallel to the loop, and the
// served files stay meanwhile (editor.go). If the loop hangs, its heartbeat stops,
// and the liveness probe restarts the process (watchdog.go).
//
//	         session (one goroutine per destination)
//	STS ───► renew ─► credentials file (sigv4 only) ──► result ─┐
//	            └───► relay ─► AMP                              ▼
//	source directory ──(poll)─────────────────────────────────► loop ──► target directory
//	Prometheus's metrics ──(until it has loaded a change)────────┘
//
// delivery.go decides the delivery of each destination. Package mirror copies the
// files, package session gets and keeps the sessions, package relay signs and forwards,
// package promconfig edits the YAML tree.
package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// DefaultMetricsAddress is the address for metrics and status, unless the config
// has another port.
var DefaultMetricsAddress = fmt.Sprintf(":%d", sidecarconfig.DefaultMetricsPort)

const (
	// poll is the time between two reads of the source. A read needs only a few system calls and
	// works on every volume. inotify would need watches, which are limited.
	poll = 400 * time.Millisecond
	// pause is the time to wait after a failure of the loop.
	pause = 2 * time.Second
)

// Options configures a sidecar.
type Options struct {
	// Config is an encoded [sidecarconfig.Config]. If it cannot be decoded, the
	// source is mirrored unchanged.
	Config string
	// Pod and Namespace become a part of the role session name.
	Pod, Namespace string
	// Source and Target are the directories to use without a config, and
	// Credentials is the directory for the heartbeat in that case; empty means none.
	Source, Target, Credentials string
	// MetricsAddress is the address to listen on; if empty, there are no metrics.
	MetricsAddress string
	// MemoryLimit is the memory limit of the process in bytes; 0 means none.
	// A configuration that cannot be edited within it is mirrored unchanged.
	MemoryLimit int64
	// FirstWait is how long the first configuration waits for the first sessions
	// of destinations with sigv4. Without a session they get the relay. 0 means 400 ms.
	FirstWait time.Duration
	// Version is the program's version, for the status.
	Version string
	Log     *slog.Logger
}

// FromEnvironment reads the variables that the webhook set in the container.
func FromEnvironment(getenv func(string) string) Options {
	return Options{
		Config: getenv(sidecarconfig.Variable),
		Pod:    getenv(sidecarconfig.PodNameVariable), Namespace: getenv(sidecarconfig.PodNamespaceVariable),
		Source: sidecarconfig.SourceDir, Target: sidecarconfig.TargetDir, Credentials: sidecarconfig.CredentialsDir,
		MetricsAddress: DefaultMetricsAddress, MemoryLimit: MemoryLimit(),
	}
}

// decode returns the config, or one that changes nothing.
func (o Options) decode() (sidecarconfig.Config, error) {
	c, err := sidecarconfig.Decode(o.Config)
	if err != nil {
		return sidecarconfig.Config{Source: o.Source, Target: o.Target, MetricsPort: sidecarconfig.NoMetrics}, err
	}
	return c, nil
}

// readyWait is how long [Ready] waits for the first configuration. The kubelet calls it once a
// second. If the answer waits, Prometheus starts earlier than after a second call.
const readyWait = 2 * time.Second

// Ready returns nil if the pod's other containers may start: the target has a
// configuration or, for a writer that is not Prometheus, the relay's password exists.
func Ready(o Options) error {
	c, _ := o.decode() // Run has logged the error
	served, missing := func() bool { return mirror.Served(c.Target) }, c.Target+" has no configuration yet"
	if c.ForWriter() {
		file := relay.PasswordFile(filepath.Dir(c.Credentials))
		served, missing = func() bool { return exists(file) }, file+" is missing"
	}
	for deadline := time.Now().Add(readyWait); !served(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New(missing)
		}
	}
	return nil
}

// Run works until its context ends, and then returns nil. If the first configuration
// cannot be served, it returns an error with the fix.
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
		start("session "+d.Name, func(ctx context.Context) { s.renew(ctx, d) })
	}
	if s.relay != nil {
		start("relay", s.serveRelay)
	}
	if s.observes() {
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

// persist runs work until it returns without a panic. After a panic it logs, and runs work
// again.
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

// sleep waits for d. It returns false if ctx ends first.
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
		log:     o.Log,
		started: time.Now(),
		results: make(chan result),
		version: o.Version,
		wait:    cmp.Or(o.FirstWait, firstWait),
		editor:  editor{limit: editLimit},
		memory:  o.MemoryLimit,
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	var err error
	if s.config, err = o.decode(); err != nil {
		s.log.Error("cannot read the sidecar config: mirroring Prometheus's configuration unchanged", "error", err)
	}
	if s.config.Prometheus.Version != "" {
		if s.reads, err = policy.ParseVersion(s.config.Prometheus.Version); err != nil {
			s.log.Warn("the version of Prometheus is not known", "error", err)
		}
	}
	for _, p := range s.config.MountPoints {
		s.mountPoints = append(s.mountPoints, mirror.MountPoint(p))
	}
	s.metrics = newMetrics(s)
	if len(s.config.Destinations) == 0 {
		return s
	}
	mode := fs.FileMode(0o644)
	if s.config.Private {
		mode = 0o600
	}
	if s.store, err = session.OpenStore(s.config.Credentials, mode); err != nil {
		s.log.Warn("cannot read the credentials of an earlier run", "error", err)
	}
	for _, configured := range s.config.Destinations {
		d := &destination{Destination: configured, block: configured.For(o.Pod), expired: make(chan struct{}, 1), out: s.started}
		d.client, d.clientErr = session.NewClient(session.OptionsFor(s.config, configured, o.Namespace, o.Pod))
		d.latest.Store(new(s.store.Session(d.profile())))
		if tls := d.block.TLS; tls != nil && s.config.DeliveryOf(configured) == policy.DeliverySigV4 {
			if d.caErr = session.WriteCAFile(tls.CAFile, d.AMP.CABundle); d.caErr != nil {
				s.log.Error("cannot write the CA file for Prometheus", "destination", d.Name, "error", d.caErr)
			}
		}
		s.destinations = append(s.destinations, d)
		s.metrics.announce(d.Name)
		if s.config.ForWriter() {
			s.served.destinations = append(s.served.destinations, d.Name) // there is no block to serve
		}
	}
	s.recall()
	s.last = lastLoadedIn(s.inState)
	if s.relay, err = s.newRelay(); err == nil {
		s.metrics.registry.MustRegister(s.relay)
		s.listener, err = s.openRelay()
	}
	if err != nil {
		s.log.Error("the relay does not serve", "error", err)
	}
	return s
}

// observes reports whether the sidecar needs Prometheus's metrics. It does for destinations with
// sigv4, because Prometheus loads their sessions only in a reload.
func (s *server) observes() bool {
	return s.config.Prometheus.Address != "" && slices.ContainsFunc(s.destinations, func(d *destination) bool {
		return s.config.DeliveryOf(d.Destination) == policy.DeliverySigV4
	})
}
