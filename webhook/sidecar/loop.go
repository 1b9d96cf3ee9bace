package sidecar

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
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
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// server is one running sidecar.
type server struct {
	log       *slog.Logger
	config    sidecarconfig.Config
	started   time.Time
	store     *session.Store
	client    *session.Client
	clientErr error // why there is no client
	sessions  session.Options
	results   chan result
	changed   chan struct{} // wakes the loop when prometheusState changes
	headroom  int64         // for an edit, in bytes of memory
	editor    editor
	beat      atomic.Int64            // when the loop last moved, in nanoseconds since started
	end       context.CancelCauseFunc // ends Run
	metrics   metrics
	notifier  inodeNotifier
	// mountPoints are those of other volumes in the target.
	mountPoints []mirror.MountPoint

	// mu guards what follows: the loop writes it, metrics and status read it.
	mu           sync.Mutex
	destinations []*destination
	served       state
	lastError    string // with the source or the target; empty: none
	retry        time.Time
	status       []byte // as last written
	prometheus   prometheusState
	// loaded are the destinations in the configuration with which Prometheus
	// became ready. offered: what it reads when it starts may have had a block
	// since it last ended; startFailed: it did not come up with one.
	loaded               []string
	offered, startFailed bool
}

// destination is a destination of the config, and its state.
type destination struct {
	sidecarconfig.Destination
	block   policy.Block
	session session.Session
	// proving: the session only proves that STS answers.
	proving bool
	// lastError is why the last attempt at a session failed; empty: it did not.
	lastError string
	changed   chan struct{} // wakes prove when prometheusState changes
	// omitted are the fields of the block that this Prometheus does not know.
	omitted []policy.Omission
	// skipped is why the block is left out though there is a session.
	skipped string
	// out is since when the block is missing; zero while it is served. gap is
	// how long it has been missing before.
	out time.Time
	gap time.Duration
}

// keyID tells one session from the next where they are handed over.
func (d *destination) keyID() string {
	if d.proving {
		return ""
	}
	return d.session.AccessKeyID
}

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
}

// result is the outcome of one attempt at a session.
type result struct {
	destination *destination
	session     session.Session
	err         error
}

// renew gets sessions for d, one after the other, and reports each attempt. A
// session is reported once it lies in the credentials file.
func (s *server) renew(ctx context.Context, d *destination) {
	current, failures := s.store.Session(d.profile()), 0
	if current.Valid(time.Now()) && !sleep(ctx, time.Until(current.Renewal())) {
		return
	}
	for ctx.Err() == nil {
		next, err := s.obtain(ctx, d)
		var wait time.Duration
		if err == nil {
			current, failures = next, 0
			wait = max(time.Until(next.Renewal()), time.Second/2)
		} else {
			failures++
			wait = session.Pause(failures, current)
		}
		select {
		case s.results <- result{d, next, err}:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, wait) {
			return
		}
	}
}

func (s *server) obtain(ctx context.Context, d *destination) (session.Session, error) {
	if s.clientErr != nil {
		return session.Session{}, s.clientErr
	}
	next, err := s.client.Obtain(ctx, d.Region, d.Role, d.AssumeRole)
	if err != nil {
		return session.Session{}, err
	}
	if !next.Valid(time.Now()) {
		return session.Session{}, errors.New("the session that STS gave is over by this node's clock: look at the clock")
	}
	if s.startOnly() {
		return next, s.profiles()
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
		case <-s.changed:
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
			s.log.Warn("no session", "destination", d.Name, "role", d.Role, "error", text, "valid", d.session.Valid(time.Now()))
		}
		return
	}
	s.metrics.renewals.WithLabelValues(d.Name, "success").Inc()
	if d.lastError != "" || !d.session.Valid(time.Now()) {
		s.log.Info("session obtained", "destination", d.Name, "role", d.Role, "expires", r.session.Expires)
	}
	d.session, d.lastError = r.session, ""
}

// step serves the configuration if it is due.
func (s *server) step(ctx context.Context, now time.Time) {
	s.mu.Lock()
	valid := s.valid(now)
	first := s.served.key == ""
	waiting := first && s.worthWaiting(now, valid)
	early := now.Before(s.retry)
	version := s.prometheus.version
	if s.startOnly() {
		version = policy.Version{} // that of the next start cannot be known
	}
	s.mu.Unlock()
	if waiting || early {
		return
	}
	fingerprint, err := mirror.Fingerprint(s.config.Source)
	if err == nil {
		if key := digest(
			[]byte(generation(valid) + "\n" + version.String() + "\n" + fingerprint),
		); key != s.served.key ||
			s.editor.ready() {
			err = s.serve(ctx, now, key, valid, version)
		}
	}
	s.recordResult(now, err)
}

// valid are the destinations whose block is due. The caller holds mu.
func (s *server) valid(now time.Time) (valid []*destination) {
	for _, d := range s.destinations {
		if s.usable(d, now) {
			valid = append(valid, d)
		}
	}
	return valid
}

// usable reports whether Prometheus can sign for d, if it is given the block. The
// caller holds mu.
func (s *server) usable(d *destination, now time.Time) bool {
	if s.startOnly() {
		return s.proven(d, now)
	}
	return d.session.Valid(now)
}

// worthWaiting reports whether the first configuration may soon be better than
// it would be now. The caller holds mu.
func (s *server) worthWaiting(now time.Time, valid []*destination) bool {
	wait := firstWait
	if s.startOnly() {
		wait = startWait
	}
	if s.startFailed || !now.Before(s.started.Add(wait)) {
		return false
	}
	// After a restart of the sidecar, Prometheus runs already.
	p := s.prometheus
	unknown := s.watches() && (!p.dialed || p.listening && !p.asked)
	return len(valid) < len(s.destinations) || unknown && now.Before(s.started.Add(firstWait))
}

// generation names a set of sessions: another one makes the pod's reloader
// reload, and the same one, after a restart, does not.
func generation(valid []*destination) string {
	var b strings.Builder
	for _, d := range valid {
		b.WriteString(d.Name + " " + d.keyID() + "\n")
	}
	return digest([]byte(b.String()))
}

func digest(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:6])
}

// serve mirrors the source with the blocks of valid destinations in it.
func (s *server) serve(ctx context.Context, now time.Time, key string, valid []*destination, version policy.Version) error {
	// A render of a large configuration leaves garbage many times its size.
	defer debug.FreeOSMemory()
	files, err := mirror.Read(s.config.Source)
	if err != nil {
		return err
	}
	next := state{key: key, at: now, result: "mirrored"}
	var out rendered
	if file, ok := files[s.config.File]; ok {
		next.source = digest(file.Content)
		out = s.edit(ctx, key+next.source, file.Content, valid, version)
		if ctx.Err() != nil {
			return nil // what is served stays
		}
		next.result, next.lastError, next.destinations = out.result, out.lastError, out.destinations
		file.Content = out.content
		next.rendered = digest(file.Content)
		files[s.config.File] = file
	} else if s.config.File != "" {
		next.lastError = "the source has no file " + s.config.File
	}
	if len(next.destinations) > 0 {
		s.mu.Lock()
		s.offered = true // before anybody can read it
		s.mu.Unlock()
	}
	changed, err := mirror.Write(s.config.Target, files, s.mountPoints...)
	if err != nil {
		return err
	}
	if _, ok := files[s.config.File]; ok && changed {
		if err := s.notifier.touch(filepath.Join(s.config.Target, s.config.File), now); err != nil {
			s.log.Warn("programs that watch the configuration file, and not its directory, may notice changes late", "error", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.announce(next, out)
	s.metrics.renders.WithLabelValues(next.result).Inc()
	s.served = next
	s.offered = len(next.destinations) > 0 || s.offered && s.prometheus.listening
	for _, d := range s.destinations {
		d.skipped, d.omitted = out.skipped[d.Name], out.omitted[d.Name]
	}
	return nil
}

// edit is render with a limit of time. The destinations belong to the loop, and
// the work may go on after it: so the work gets copies.
func (s *server) edit(ctx context.Context, key string, content []byte, valid []*destination, version policy.Version) rendered {
	s.mu.Lock()
	copies := make([]*destination, len(valid))
	for i, d := range valid {
		c := *d
		copies[i] = &c
	}
	s.mu.Unlock()
	if len(copies) == 0 {
		return render(content, nil, version, s.headroom)
	}
	out, ok := s.editor.do(ctx, key, func() (out rendered) {
		survived(func() { out = render(content, copies, version, s.headroom) }, func(recovered any, _ []byte) {
			out = passedThrough(content, fmt.Sprintf("editing the configuration panicked: %v", recovered))
		})
		return out
	})
	if !ok {
		return passedThrough(
			content,
			fmt.Sprintf(
				"the block is not in after %s: it comes when the edit is done, and sooner where the configuration is smaller, or has fewer "+
					"aliases and merge keys",
				s.editor.limit,
			),
		)
	}
	return out
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
	have := s.served.destinations
	if s.startOnly() {
		have = s.loaded
	}
	for _, d := range s.destinations {
		d.trackGap(now, slices.Contains(have, d.Name))
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
