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

// server is a running sidecar.
type server struct {
	log      *slog.Logger
	config   sidecarconfig.Config
	started  time.Time
	wait     time.Duration // for the first sessions
	store    *session.Store
	results  chan result
	memory   int64 // the container's limit in bytes; 0 if there is none
	editor   editor
	beat     atomic.Int64            // when the loop last moved, in nanoseconds since started
	end      context.CancelCauseFunc // ends Run
	metrics  metrics
	version  string         // the program's version
	reads    policy.Version // Prometheus's version; zero if it is not known
	relay    *relay.Relay   // nil if it could not be created
	listener net.Listener   // the relay's; nil if it is not open yet
	last     lastLoaded
	notifier inodeNotifier
	// mountPoints are the mount points of other volumes in the target.
	mountPoints []mirror.MountPoint

	// reading is locked while a request reads Prometheus's metrics: one at a time.
	reading sync.Mutex

	// mu guards the following fields. The loop writes them; metrics and status read them.
	mu           sync.Mutex
	destinations []*destination
	served       state
	lastError    string // a problem with the source or the target; empty if there is none
	retry        time.Time
	status       []byte // as last written
	password     string // the relay's
	prometheus   observation
	// swapped is when the served files became visible. taken is true if Prometheus
	// has loaded them.
	swapped time.Time
	taken   bool
	// rescue is since when the last loaded files are served; zero while the user's files are
	// served. rescued is true if there was a rescue already.
	rescue  time.Time
	rescued bool
	late    string // the key of an edit that continues in parallel to the loop
}

// destination is a destination of the config with its state.
type destination struct {
	sidecarconfig.Destination
	client    *session.Client
	clientErr error // why there is no client
	// caErr is why Prometheus's CA file is missing. Without it no block with sigv4 can be loaded.
	caErr error
	// delivery is the current delivery; empty if it is not decided. reason is why it differs
	// from the webhook's, and movedAt is since when.
	delivery sidecarconfig.Delivery
	reason   string
	movedAt  time.Time
	// block is the block with sigv4, and relayed the block for the relay. relayed has no URL while
	// the relay has no address.
	block, relayed policy.Block
	latest         atomic.Pointer[session.Session]
	expired        chan struct{} // wakes renew after AMP reported that the session has expired
	// servedSession is the session in the served configuration, and held the session that
	// Prometheus has. holds is true if Prometheus has the block with sigv4.
	servedSession, held session.Session
	holds               bool
	// lastError is why the last attempt to get a session failed; empty if it succeeded.
	lastError string
	told      bool // whether the first session was logged
	// omitted are the fields of the block that this Prometheus does not know.
	omitted []policy.Omission
	// skipped is why the block is missing although there is a session.
	skipped string
	// out is since when the block is missing; zero while it is served. gap is
	// the length of all earlier gaps.
	out time.Time
	gap time.Duration
}

// session returns the latest session; zero if there was none.
func (d *destination) session() session.Session { return *d.latest.Load() }

func (d *destination) profile() string { return policy.BlockName(d.Name) }

// state is what was served last.
type state struct {
	// key identifies its input.
	key          string
	at           time.Time
	source       string // hash of the user's configuration file
	rendered     string // hash of the served configuration file
	result       string
	lastError    string // why the user's configuration was served unchanged
	destinations []string
	// signing are the destinations with a block with sigv4 in the served configuration.
	signing []string
	// size is the size of the user's configuration, unzipped, and need the memory that its edit may
	// need, in bytes; both are zero if nothing was edited.
	size, need int64
}

// result is the result of one attempt to get a session.
type result struct {
	destination *destination
	err         error
}

// minRenewal is the shortest time between two attempts to get a session because of AMP's
// answers. Each write that AMP refuses requests one, and STS must not be called for each.
const minRenewal = 10 * time.Second

// renew gets sessions for d, one after the other, and reports each attempt. It
// reports a session after it was written to the credentials file.
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
			d.latest.Store(&next) // the relay uses it at once, without the loop
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

// awaitRenewal waits, or returns early when AMP reports that the session has expired. attempt is
// when the last session was requested. It returns false if ctx ends first.
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
		return session.Session{}, errors.New("the session from STS has already expired by this node's clock: check the clock")
	}
	if s.config.DeliveryOf(d.Destination) == policy.DeliveryRelay {
		return next, nil // Prometheus does not use it
	}
	return next, s.store.Put(d.profile(), next)
}

// loop serves the configuration each time its input has changed.
func (s *server) loop(ctx context.Context) {
	ticker := time.NewTicker(poll)
	defer ticker.Stop()
	defer func() { _ = s.notifier.close() }() // the files were only read and touched
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

// accept records the result of an attempt. It logs only changes.
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

// wanted holds the blocks of one destination that must be served. It is a value, because an edit
// may continue in parallel to the loop.
type wanted struct {
	name string
	// signing and relaying are nil if the block is not due.
	signing, relaying *policy.Block
	session           session.Session // the session of signing
}

// due returns the blocks that must be served. The caller holds mu.
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

// generation returns an id for a set of blocks. A new id makes the pod's reloader reload. The id
// stays the same after a restart of the sidecar, so that nothing reloads. A new session changes the
// id only if a block with sigv4 needs it.
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

// errStays means that the served files stay.
var errStays = errors.New("the served files stay")

// serve mirrors the source and adds the due blocks.
func (s *server) serve(ctx context.Context, now time.Time, source, key string, due []wanted) error {
	// The rendering of a large configuration leaves garbage many times its size.
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
			s.log.Warn("programs that watch the configuration file and not its directory may see changes late", "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announce(next, out)
	s.metrics.renders.WithLabelValues(next.result).Inc()
	s.served, s.late = next, ""
	if err := errors.Join(kept, s.last.serve()); err != nil {
		s.log.Warn("cannot keep a copy of the configuration for a move to the relay", "error", err)
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
		s.noteTaken() // without metrics it is not known, so assume that it loads
	}
	return nil
}

// keepNext keeps a copy of the user's files while a block with sigv4 is served. A move may need
// the last files that Prometheus loaded.
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
		return errors.Join(err, os.RemoveAll(s.last.next)) // an incomplete copy is useless
	}
	return nil
}

// keepServing keeps the served files, because the edit of the next ones takes long.
// If the block were missing meanwhile, Prometheus would drop the block's backlog.
func (s *server) keepServing(key, problem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = key
	if problem != s.served.lastError {
		s.served.lastError = problem
		s.log.Warn("the served configuration stays", "file", s.config.File, "error", problem)
	}
}

// edit renders with a time limit. ok is false if the edit takes longer.
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
				"the edit takes longer than %s: the result is served later; an edit is faster if the configuration is smaller or "+
					"has fewer aliases and merge keys",
				s.editor.limit,
			),
		), false
	}
	return out, true
}

// announce logs the changes of a new state. The caller holds mu.
func (s *server) announce(next state, out rendered) {
	for _, d := range s.destinations {
		if reason := out.skipped[d.Name]; reason != "" && reason != d.skipped {
			s.log.Warn("the block is missing", "destination", d.Name, "reason", reason)
		}
		if omitted := out.omitted[d.Name]; len(omitted) > 0 && !slices.Equal(omitted, d.omitted) {
			s.log.Warn(
				"some fields of the block are missing: this Prometheus does not know them, or its version is not known",
				"destination",
				d.Name,
				"fields",
				fields(omitted),
			)
		}
	}
	if next.lastError != "" && next.lastError != s.served.lastError {
		s.log.Warn("the configuration is served unchanged", "file", s.config.File, "error", next.lastError)
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

// trackGap updates the record of gaps.
func (d *destination) trackGap(now time.Time, in bool) {
	switch covered := in || d.skipped != ""; {
	case covered && !d.out.IsZero():
		d.gap += now.Sub(d.out)
		d.out = time.Time{}
	case !covered && d.out.IsZero():
		d.out = now
	}
}

// recordResult records whether the last step succeeded, and updates log, metrics and status.
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
		s.log.Error("cannot mirror the configuration: the served one stays", "error", text)
	} else if text != s.lastError {
		s.log.Info("the configuration can be mirrored again")
	}
	s.lastError = text
	if err != nil && s.served.key == "" && now.Sub(s.started) > firstLimit && !mirror.Served(s.config.Target) {
		s.end(err)
	}
}
