package sidecar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// server is one running sidecar.
type server struct {
	log      *slog.Logger
	config   sidecarconfig.Config
	started  time.Time
	wait     time.Duration // for the first sessions
	store    *session.Store
	results  chan result
	memory   int64 // the container's limit, in bytes; 0: there is none
	editor   editor
	beat     atomic.Int64            // when the loop last moved, in nanoseconds since started
	end      context.CancelCauseFunc // ends Run
	metrics  metrics
	version  string         // the program's
	reads    policy.Version // Prometheus's; zero: not known
	relay    *relay.Relay   // nil: it could not be made
	listener net.Listener   // the relay's; nil: it is to be opened
	last     lastLoaded
	notifier inodeNotifier
	// mountPoints are those of other volumes in the target.
	mountPoints []mirror.MountPoint

	// reading is locked while a request reads Prometheus's metrics: one at a time.
	reading sync.Mutex

	// mu guards what follows: the loop writes it, metrics and status read it.
	mu           sync.Mutex
	destinations []*destination
	served       state
	lastError    string // with the source or the target; empty: none
	retry        time.Time
	status       []byte // as last written
	password     string // the relay's
	prometheus   observation
	// swapped is when what is served became visible, and taken reports that Prometheus
	// has loaded it.
	swapped time.Time
	taken   bool
	// rescue is since when the last files that loaded are served; zero: the user's are.
	// rescued: that was done already.
	rescue  time.Time
	rescued bool
	late    string // the key of an edit that goes on beside the loop
}

// destination is a destination of the config, and its state.
type destination struct {
	sidecarconfig.Destination
	client    *session.Client
	clientErr error // why there is no client
	// caErr is why Prometheus's CA file is not there. Without it no block with sigv4 loads.
	caErr error
	// delivery is how the samples go; empty: it is not decided. reason is why it is no
	// longer the webhook's, and movedAt since when.
	delivery sidecarconfig.Delivery
	reason   string
	movedAt  time.Time
	// block is the one with sigv4, relayed the one for the relay; without a URL while the
	// relay has no address.
	block, relayed policy.Block
	latest         atomic.Pointer[session.Session]
	expired        chan struct{} // wakes renew: AMP calls the session expired
	// servedSession is the one of the configuration that is served. held is the one that
	// Prometheus has; holds: it has the block with sigv4.
	servedSession, held session.Session
	holds               bool
	// lastError is why the last attempt at a session failed; empty: it did not.
	lastError string
	told      bool // the log has the first session
	// omitted are the fields of the block that this Prometheus does not know.
	omitted []policy.Omission
	// skipped is why the block is left out though there is a session.
	skipped string
	// out is since when the block is missing; zero while it is served. gap is
	// how long it has been missing before.
	out time.Time
	gap time.Duration
}

// session is the latest one; zero: there has been none.
func (d *destination) session() session.Session { return *d.latest.Load() }

func (d *destination) profile() string { return policy.BlockName(d.Name) }

// state is what was served last.
type state struct {
	// key is what it was made of.
	key          string
	at           time.Time
	source       string // hash of the user's configuration file
	rendered     string // hash of the served one
	result       string
	lastError    string // why the user's configuration was served as it is
	destinations []string
	// signing are those whose block with sigv4 is in.
	signing []string
	// size is the user's configuration's, unzipped, and need the memory that its edit may
	// need, in bytes; zero: nothing was edited.
	size, need int64
}

// result is the outcome of one attempt at a session.
type result struct {
	destination *destination
	err         error
}

// minRenewal is the shortest time between two attempts at a session where AMP's answer asks
// for one: each write that AMP refuses asks, and STS must not be called for each.
const minRenewal = 10 * time.Second

// renew gets sessions for d, one after the other, and reports each attempt. A
// session is reported once it lies in the credentials file.
func (s *server) renew(ctx context.Context, d *destination) {
	current, failures := d.session(), 0
	if current.Valid(time.Now()) && !s.awaitRenewal(ctx, d, current.Obtained, time.Until(current.Renewal())) {
		return
	}
	for ctx.Err() == nil {
		attempt := time.Now()
		next, err := s.obtain(ctx, d)
		var wait time.Duration
		if err == nil {
			current, failures = next, 0
			wait = max(time.Until(next.Renewal()), time.Second/2)
			d.latest.Store(&next) // the relay does not wait for the loop
		} else {
			failures++
			wait = session.Pause(failures, current)
		}
		select {
		case s.results <- result{d, err}:
		case <-ctx.Done():
			return
		}
		if !s.awaitRenewal(ctx, d, attempt, wait) {
			return
		}
	}
}

// awaitRenewal waits, at most until AMP calls the session expired. attempt is when the last
// session was asked for. It returns false if ctx ends first.
func (s *server) awaitRenewal(ctx context.Context, d *destination, attempt time.Time, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-timer.C:
			return true
		case <-d.expired:
			if time.Since(attempt) > minRenewal {
				return true
			}
		}
	}
}

func (s *server) obtain(ctx context.Context, d *destination) (session.Session, error) {
	if d.clientErr != nil {
		return session.Session{}, d.clientErr
	}
	next, err := d.client.Obtain(ctx)
	if err != nil {
		return session.Session{}, err
	}
	if !next.Valid(time.Now()) {
		return session.Session{}, errors.New("the session that STS gave is over by this node's clock: look at the clock")
	}
	if s.config.DeliveryOf(d.Destination) == policy.DeliveryRelay {
		return next, nil // Prometheus need not see it
	}
	return next, s.store.Put(d.profile(), next)
}

// loop serves the configuration whenever what it is made of has changed.
func (s *server) loop(ctx context.Context) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	defer func() { _ = s.notifier.close() }() // only read and touched
	for {
		s.beat.Store(int64(time.Since(s.started)))
		s.step(ctx, time.Now())
		s.writeStatus()
		select {
		case <-ctx.Done():
			return
		case r := <-s.results:
			s.accept(r)
		case <-ticker.C:
		}
	}
}

// accept notes the outcome of an attempt. Only changes are logged.
func (s *server) accept(r result) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := r.destination
	if r.err != nil {
		s.metrics.renewals.WithLabelValues(d.Name, "failure").Inc()
		if text := r.err.Error(); text != d.lastError {
			d.lastError = text
			s.log.Warn("no session", "destination", d.Name, "role", d.Role, "error", text, "valid", d.session().Valid(time.Now()))
		}
		return
	}
	s.metrics.renewals.WithLabelValues(d.Name, "success").Inc()
	if d.lastError != "" || !d.told {
		s.log.Info("session obtained", "destination", d.Name, "role", d.Role, "expires", d.session().Expires)
	}
	d.told, d.lastError = true, ""
}

// step serves the configuration if it is due.
func (s *server) step(ctx context.Context, now time.Time) {
	s.mu.Lock()
	decided := s.decide(now)
	if decided {
		s.advance(now)
	}
	due := s.due(now)
	source := s.config.Source
	if !s.rescue.IsZero() {
		source = s.last.loaded
	}
	early := now.Before(s.retry)
	s.mu.Unlock()
	if s.config.ForWriter() {
		s.recordResult(now, nil)
		return
	}
	if !decided || early {
		return
	}
	fingerprint, err := mirror.Fingerprint(source)
	if err == nil {
		key := digest([]byte(generation(due) + "\n" + source + "\n" + fingerprint))
		if key != s.served.key && key != s.late || s.editor.ready() {
			err = s.serve(ctx, now, source, key, due)
		}
	}
	s.recordResult(now, err)
}

// wanted are the blocks of one destination that are due. It is a value: an edit may go on
// beside the loop.
type wanted struct {
	name string
	// signing and relaying are nil where the block is not due.
	signing, relaying *policy.Block
	session           session.Session // of signing
}

// due are the blocks that are due. The caller holds mu.
func (s *server) due(now time.Time) (due []wanted) {
	for _, d := range s.destinations {
		w := wanted{name: d.Name, session: d.session()}
		if d.delivery != sidecarconfig.DeliveryRelay && w.session.Valid(now) {
			w.signing = new(d.block)
		}
		if d.delivery != sidecarconfig.DeliverySigV4 && d.relayed.URL != "" {
			w.relaying = new(d.relayed)
		}
		if w.signing != nil || w.relaying != nil {
			due = append(due, w)
		}
	}
	return due
}

// generation names a set of blocks: another one makes the pod's reloader reload, and the
// same one, after a restart, does not. A session matters to the block with sigv4 only.
func generation(due []wanted) string {
	var b strings.Builder
	for _, w := range due {
		b.WriteString(w.name)
		if w.signing != nil {
			b.WriteString(" " + w.session.AccessKeyID)
		}
		if w.relaying != nil {
			b.WriteString(" " + w.relaying.URL)
		}
		b.WriteString("\n")
	}
	return digest([]byte(b.String()))
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:6])
}

// errStays: what is served stays.
var errStays = errors.New("what is served stays")

// serve mirrors the source with the blocks that are due in it.
func (s *server) serve(ctx context.Context, now time.Time, source, key string, due []wanted) error {
	// A render of a large configuration leaves garbage many times its size.
	defer debug.FreeOSMemory()
	kept := s.keepNext(source, due)
	next := state{key: key, at: now, result: "mirrored"}
	var out rendered
	found := false
	changed, err := mirror.Mirror(source, s.config.Target, s.config.File, func(content []byte) ([]byte, error) {
		found, next.source = true, digest(content)
		var ok bool
		out, ok = s.edit(ctx, key+next.source, content, due)
		if ctx.Err() != nil || !ok && mirror.Served(s.config.Target) {
			return nil, errStays
		}
		next.result, next.lastError = out.result, out.lastError
		next.destinations, next.signing = out.destinations, out.signing
		next.size, next.need = out.size, out.need
		next.rendered = digest(out.content)
		return out.content, nil
	}, s.mountPoints...)
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, errStays):
		s.keepServing(key, out.lastError)
		return nil
	}
	if err != nil {
		return err
	}
	if !found && s.config.File != "" {
		next.lastError = "the source has no file " + s.config.File
	}
	if found && changed {
		if err := s.notifier.touch(filepath.Join(s.config.Target, s.config.File), now); err != nil {
			s.log.Warn("programs that watch the configuration file, and not its directory, may notice changes late", "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announce(next, out)
	s.metrics.renders.WithLabelValues(next.result).Inc()
	s.served, s.late = next, ""
	if err := errors.Join(kept, s.last.serve()); err != nil {
		s.log.Warn("the configuration cannot be kept for a time when a later one does not load", "error", err)
	}
	if changed || s.swapped.IsZero() {
		s.swapped, s.taken = mirror.Swapped(s.config.Target), false
	}
	for _, d := range s.destinations {
		d.skipped, d.omitted = out.skipped[d.Name], out.omitted[d.Name]
		for _, w := range due {
			if w.name == d.Name {
				d.servedSession = w.session
			}
		}
	}
	if !s.observes() {
		s.noteTaken() // there is no way to know
	}
	return nil
}

// keepNext keeps the user's files as long as a block with sigv4 is served: a move may need
// the last ones that Prometheus loaded.
func (s *server) keepNext(source string, due []wanted) error {
	signing := slices.ContainsFunc(due, func(w wanted) bool { return w.signing != nil })
	s.mu.Lock()
	rescue := !s.rescue.IsZero()
	s.mu.Unlock()
	switch {
	case rescue || !s.observes():
		return nil
	case !signing:
		s.last.drop(s.log)
		return nil
	}
	err := os.MkdirAll(s.last.next, 0o700)
	if err == nil {
		_, err = mirror.Mirror(source, s.last.next, "", nil)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(s.last.next)) // a part of the files is none
	}
	return nil
}

// keepServing leaves what is served, because the edit of its successor takes long.
// Without a block Prometheus would drop the block's backlog.
func (s *server) keepServing(key, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = key
	if problem != s.served.lastError {
		s.served.lastError = problem
		s.log.Warn("what was served stays", "file", s.config.File, "error", problem)
	}
}

// edit is render with a limit of time. ok is false if the edit takes longer.
func (s *server) edit(ctx context.Context, key string, content []byte, due []wanted) (out rendered, ok bool) {
	if len(due) == 0 {
		return render(content, nil, s.reads, s.memory), true
	}
	out, ok = s.editor.do(ctx, key, func() (out rendered) {
		survived(func() { out = render(content, due, s.reads, s.memory) }, func(recovered any, _ []byte) {
			out = passedThrough(content, fmt.Sprintf("editing the configuration panicked: %v", recovered))
		})
		return out
	})
	if !ok {
		return passedThrough(
			content,
			fmt.Sprintf(
				"the edit takes longer than %s: it is served when it is done, and sooner where the configuration is smaller, or has fewer "+
					"aliases and merge keys",
				s.editor.limit,
			),
		), false
	}
	return out, true
}

// announce logs what a new state changes. The caller holds mu.
func (s *server) announce(next state, out rendered) {
	for _, d := range s.destinations {
		if reason := out.skipped[d.Name]; reason != "" && reason != d.skipped {
			s.log.Warn("the block is left out", "destination", d.Name, "reason", reason)
		}
		if omitted := out.omitted[d.Name]; len(omitted) > 0 && !slices.Equal(omitted, d.omitted) {
			s.log.Warn(
				"fields of the block are left out: this Prometheus does not know them, or its version is not known",
				"destination",
				d.Name,
				"fields",
				fields(omitted),
			)
		}
	}
	if next.lastError != "" && next.lastError != s.served.lastError {
		s.log.Warn("the configuration is served as it is", "file", s.config.File, "error", next.lastError)
	}
	if s.served.key == "" || !slices.Equal(next.destinations, s.served.destinations) || next.source != s.served.source ||
		next.lastError != s.served.lastError {
		s.log.Info(
			"configuration served",
			"destinations",
			next.destinations,
			"result",
			next.result,
			"source",
			next.source,
			"rendered",
			next.rendered,
		)
	}
}

// trackGap keeps the account of gaps.
func (d *destination) trackGap(now time.Time, in bool) {
	switch covered := in || d.skipped != ""; {
	case covered && !d.out.IsZero():
		d.gap += now.Sub(d.out)
		d.out = time.Time{}
	case !covered && d.out.IsZero():
		d.out = now
	}
}

// recordResult notes whether the last step succeeded, and tells the world.
func (s *server) recordResult(now time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.destinations {
		d.trackGap(now, slices.Contains(s.served.destinations, d.Name))
	}
	text := ""
	if err != nil {
		err = s.explain(err)
		text = err.Error()
		s.retry = now.Add(pause)
		s.metrics.renders.WithLabelValues("failure").Inc()
	}
	if text != s.lastError && text != "" {
		s.log.Error("the configuration cannot be mirrored: what was served stays", "error", text)
	} else if text != s.lastError {
		s.log.Info("the configuration can be mirrored again")
	}
	s.lastError = text
	if err != nil && s.served.key == "" && now.Sub(s.started) > firstLimit && !mirror.Served(s.config.Target) {
		s.end(err)
	}
}
