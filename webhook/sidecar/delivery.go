package sidecar

import (
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// How the samples of each destination go, and when that changes. Three rules keep every
// sample:
//
//   - A relay block is there from the first start on and never changes. Prometheus
//     drops the backlog of a block that changes, and sends nothing older than a new one.
//   - Prometheus must never hold a session that is about to end. It takes a new one by a
//     reload, which fails while the user's configuration is invalid. So a destination
//     moves to the relay, where no session is needed, once the session that Prometheus
//     holds is past two thirds of its life.
//   - A move adds the relay block first, and takes the other one away when that has sent
//     all that it had. Meanwhile the relay holds its samples back: AMP takes no sample
//     that is older than the last one of its series.
//
// A move is never undone while the pod lives: that would need another reload.

const (
	// firstWait is the default of [Options.FirstWait]. It is what injection adds to
	// Prometheus's start while STS does not answer.
	firstWait = 400 * time.Millisecond
	// maxDrain is how much newer than the relay block a sample must be that the block
	// with sigv4 has sent. Then all older ones are sent too: a scrape ends by then.
	maxDrain = 15 * time.Second
	// quietDrain is for how long nothing may have been sent again where samples are always
	// pending: longer than a write may take, which is 30 s by default.
	quietDrain = time.Minute
	// takenLimit is how long Prometheus may take for a move before that counts as failed.
	takenLimit = time.Minute
	// holdLimit is how long the relay waits for the block with sigv4 in a move. After it
	// Prometheus's WAL, which has about two hours, matters more.
	holdLimit = 30 * time.Minute
	// rescueLimit is how long the files of an earlier configuration may be served.
	rescueLimit = 5 * time.Minute

	// deliveriesFile lies beside the credentials file, and outlives the container.
	deliveriesFile = "deliveries.json"
)

// Reasons for a move, for the metric and the status.
const (
	movedAtStart   = "there was no session when the pod started"
	movedByRenewal = "the session could not be renewed in time"
	movedByReload  = "Prometheus did not take the new session"
)

// move is how a destination's samples go, and why.
type move struct {
	Delivery sidecarconfig.Delivery `json:"delivery"`
	Reason   string                 `json:"reason,omitempty"`
	// At is when the move began.
	At time.Time `json:"at,omitzero"`
}

// recall reads the deliveries of an earlier run in this pod.
func (s *server) recall() {
	text, err := os.ReadFile(s.inState(deliveriesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	moves := map[string]move{}
	if err == nil {
		err = json.Unmarshal(text, &moves)
	}
	if err != nil {
		s.log.Warn("the deliveries of an earlier run cannot be read", "error", err)
	}
	for _, d := range s.destinations {
		earlier := moves[d.Name]
		d.delivery, d.reason, d.movedAt = earlier.Delivery, earlier.Reason, earlier.At
	}
}

// remember writes the deliveries, before anything that follows from them is served. The
// caller holds mu.
func (s *server) remember() {
	moves := map[string]move{}
	for _, d := range s.destinations {
		moves[d.Name] = move{d.delivery, d.reason, d.movedAt}
	}
	text, err := json.Marshal(moves)
	if err == nil {
		err = session.WriteFile(s.inState(deliveriesFile), text, 0o644)
	}
	if err != nil {
		s.log.Warn("the deliveries cannot be written: a restart of the sidecar would forget them", "error", err)
	}
}

// inState is the path of a file in the memory volume that outlives the container.
func (s *server) inState(name string) string {
	return filepath.Join(filepath.Dir(s.config.Credentials), name)
}

// decide chooses the delivery of destinations that have none yet. It returns false while
// a session may still come. The caller holds mu.
func (s *server) decide(now time.Time) bool {
	undecided := slices.DeleteFunc(slices.Clone(s.destinations), func(d *destination) bool { return d.delivery != "" })
	if len(undecided) == 0 {
		return true
	}
	late := now.Sub(s.started) >= s.wait
	for _, d := range undecided {
		switch {
		case s.config.DeliveryOf(d.Destination) == policy.DeliveryRelay:
			d.delivery = sidecarconfig.DeliveryRelay
		case d.session().Valid(now) && d.caErr == nil:
			d.delivery = sidecarconfig.DeliverySigV4
		case late:
			s.moveTo(d, sidecarconfig.DeliveryRelay, movedAtStart, now)
		}
	}
	if slices.ContainsFunc(undecided, func(d *destination) bool { return d.delivery == "" }) {
		return false
	}
	s.remember()
	return true
}

func (s *server) moveTo(d *destination, to sidecarconfig.Delivery, reason string, now time.Time) {
	if d.reason == "" {
		d.reason, d.movedAt = reason, now
		s.metrics.moves.WithLabelValues(d.Name, moveLabels[reason]).Inc()
	}
	s.log.Info("the delivery changes", "destination", d.Name, "from", d.delivery, "to", to, "reason", d.reason)
	d.delivery = to
}

// moveLabels are the values of the metric's label reason.
var moveLabels = map[string]string{movedAtStart: "start", movedByRenewal: "renewal", movedByReload: "reload"}

// advance begins and ends moves. The caller holds mu.
func (s *server) advance(now time.Time) {
	changed := false
	to := func(d *destination, delivery sidecarconfig.Delivery, reason string) {
		s.moveTo(d, delivery, reason, now)
		changed = true
	}
	for _, d := range s.destinations {
		switch held := cmp.Or(d.held, d.session()); d.delivery {
		case sidecarconfig.DeliverySigV4:
			switch {
			case !pastTwoThirds(held, now):
			case s.prometheus.absent:
				// What is served is what it is going to start with: there is no backlog.
				to(d, sidecarconfig.DeliveryRelay, movedByRenewal)
			case pastTwoThirds(d.session(), now):
				to(d, sidecarconfig.DeliveryMoving, movedByRenewal)
			default:
				to(d, sidecarconfig.DeliveryMoving, movedByReload)
			}
		case sidecarconfig.DeliveryMoving:
			// A third of a life after its begin the session that Prometheus has is over.
			over := now.Sub(d.movedAt) > time.Duration(s.config.SessionSeconds)*time.Second/3
			if over || !held.Valid(now) || s.taken && s.drained(d, now) {
				to(d, sidecarconfig.DeliveryRelay, d.reason)
			}
		}
	}
	if changed && s.cannotLoad() {
		// No other destination can take a session either, and there is one rescue.
		for _, d := range s.destinations {
			if d.delivery == sidecarconfig.DeliverySigV4 {
				to(d, sidecarconfig.DeliveryMoving, movedByReload)
			}
		}
	}
	if changed {
		s.remember()
	}
	s.planRescue(now)
}

// cannotLoad reports whether Prometheus has failed to load what is served. The caller
// holds mu.
func (s *server) cannotLoad() bool { return !s.taken && s.prometheus.reloadFailed }

// pastTwoThirds reports whether two thirds of a session's life are over.
func pastTwoThirds(held session.Session, now time.Time) bool {
	return !now.Before(held.Obtained.Add(held.Life() * 2 / 3))
}

// drained reports whether the block with sigv4 has sent everything that the relay block
// is not going to send. Its shards send side by side, so the newest sample says nothing
// of a shard that AMP refuses for a while: nothing may be pending, or be sent again. The
// caller holds mu.
func (s *server) drained(d *destination, now time.Time) bool {
	q, life := s.prometheus.queues[d.block.URL], cmp.Or(d.held, d.session()).Life()
	if !q.sent.After(s.prometheus.lastReload.Add(min(maxDrain, life/10))) {
		return false
	}
	return q.pending == 0 || now.Sub(q.quiet) > min(quietDrain, life/10)
}

// planRescue serves, for the time of a move, the last files that Prometheus loaded: the
// user's own cannot be loaded, and without a load nothing moves. It happens once for a
// move, so that the user's alerts on failed reloads are silenced no longer than needed.
// The caller holds mu.
func (s *server) planRescue(now time.Time) {
	moving := slices.ContainsFunc(s.destinations, func(d *destination) bool {
		return d.delivery == sidecarconfig.DeliveryMoving || d.holds && d.delivery == sidecarconfig.DeliveryRelay
	})
	switch {
	case s.rescue.IsZero():
		if moving && !s.rescued && s.cannotLoad() && s.last.exists() {
			s.rescue, s.rescued = now, true
			s.log.Warn("Prometheus cannot load its configuration: the last one that it loaded is served while its samples move to the relay")
		}
	case !moving || now.Sub(s.rescue) > rescueLimit:
		s.rescue = time.Time{}
		s.log.Info("the user's own configuration is served again", "moved", !moving)
	}
}

// noteTaken notes that Prometheus has loaded what is served. The caller holds mu.
func (s *server) noteTaken() {
	s.taken = true
	for _, d := range s.destinations {
		in := slices.Contains(s.served.signing, d.Name)
		d.holds = in
		if in {
			d.held = d.servedSession
		}
	}
	if !s.rescue.IsZero() {
		return
	}
	if err := s.last.keep(); err != nil {
		s.log.Warn("the configuration that Prometheus has loaded cannot be kept", "error", err)
	}
}

// notTaken reports whether Prometheus goes on with a session that is about to end, or has
// ended. The caller holds mu.
func (s *server) notTaken(d *destination, now time.Time) bool {
	return d.holds && d.reason != "" && !s.taken && now.Sub(d.movedAt) > min(takenLimit, d.held.Life()/10)
}

// lastLoaded has the directories, in the memory volume, that keep the last files that
// Prometheus loaded. next are files that are about to be served, candidate those that are,
// and loaded those that Prometheus is known to have loaded.
type lastLoaded struct{ next, candidate, loaded string }

func lastLoadedIn(inState func(string) string) lastLoaded {
	return lastLoaded{inState("next"), inState("candidate"), inState("last-loaded")}
}

func (l lastLoaded) exists() bool { return exists(l.loaded) }

// serve makes the next files the candidate. It comes after they are served: until then
// Prometheus may load the candidate. Without next files there is no candidate.
func (l lastLoaded) serve() error {
	err := os.RemoveAll(l.candidate)
	if exists(l.next) {
		err = errors.Join(err, os.Rename(l.next, l.candidate))
	}
	return err
}

// keep makes the candidate, if there is one, the last that was loaded.
func (l lastLoaded) keep() error {
	if !exists(l.candidate) {
		return nil
	}
	return errors.Join(os.RemoveAll(l.loaded), os.Rename(l.candidate, l.loaded))
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}

// drop removes all, once no destination can need them.
func (l lastLoaded) drop(log *slog.Logger) {
	if err := errors.Join(os.RemoveAll(l.next), os.RemoveAll(l.candidate), os.RemoveAll(l.loaded)); err != nil {
		log.Warn("an earlier configuration cannot be removed", "error", err)
	}
}
