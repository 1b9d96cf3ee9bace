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

// This file decides the delivery of each destination, and when it changes. Three rules keep every
// sample:
//
//   - A relay block exists from the first start and never changes. Prometheus
//     drops the backlog of a block that changes, and a new block sends no older samples.
//   - Prometheus must never hold a session that is about to end. It loads a new one by a
//     reload, which fails while the user's configuration is invalid. So a destination
//     moves to the relay, where no session is needed, when two thirds of the life of
//     Prometheus's session are over.
//   - A move first adds the relay block, and removes the other one after that has sent
//     its whole queue. Until then the relay does not forward samples, because AMP accepts no sample
//     that is older than the last one of its series.
//
// A move is not undone while the pod lives, because that would need another reload.

const (
	// firstWait is the default of [Options.FirstWait]. Injection delays
	// Prometheus's start by this time if STS does not answer.
	firstWait = 400 * time.Millisecond
	// maxDrain is the longest time that a scrape takes. When the block with sigv4 has sent a sample
	// that is this much newer than the start of the relay block, it has sent all samples from
	// before that start.
	maxDrain = 15 * time.Second
	// quietDrain is the time without repeated sends that is needed if samples are always
	// pending. It is longer than one write may take, which is 30 s by default.
	quietDrain = time.Minute
	// takenLimit is how long Prometheus may take to load a move's change before the move has failed.
	takenLimit = time.Minute
	// holdLimit is how long the relay waits for the block with sigv4 in a move. After that,
	// Prometheus's WAL, which keeps about two hours, is more important.
	holdLimit = 30 * time.Minute
	// rescueLimit is how long the files of an earlier configuration may be served.
	rescueLimit = 5 * time.Minute

	// deliveriesFile is in the directory of the credentials file, and survives the container.
	deliveriesFile = "deliveries.json"
)

// Reasons for a move, for the metric and the status.
const (
	movedAtStart   = "there was no session when the pod started"
	movedByRenewal = "the session could not be renewed in time"
	movedByReload  = "Prometheus did not load the new session"
)

// move is the delivery of a destination, with the reason.
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
		s.log.Warn("cannot read the deliveries of an earlier run", "error", err)
	}
	for _, d := range s.destinations {
		earlier := moves[d.Name]
		d.delivery, d.reason, d.movedAt = earlier.Delivery, earlier.Reason, earlier.At
	}
}

// remember writes the deliveries before their effects are served. The
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
		s.log.Warn("cannot write the deliveries: they would be lost after a restart of the sidecar", "error", err)
	}
}

// inState returns the path of a file in the memory volume, which survives the container.
func (s *server) inState(name string) string {
	return filepath.Join(filepath.Dir(s.config.Credentials), name)
}

// decide chooses the delivery for destinations without one. It returns false while
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
	s.log.Info("delivery changed", "destination", d.Name, "from", d.delivery, "to", to, "reason", d.reason)
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
				// Prometheus has not started yet and has no backlog, so no move is needed.
				to(d, sidecarconfig.DeliveryRelay, movedByRenewal)
			case pastTwoThirds(d.session(), now):
				to(d, sidecarconfig.DeliveryMoving, movedByRenewal)
			default:
				to(d, sidecarconfig.DeliveryMoving, movedByReload)
			}
		case sidecarconfig.DeliveryMoving:
			// The move began after two thirds of the session's life, so the session is over after
			// another third.
			over := now.Sub(d.movedAt) > time.Duration(s.config.SessionSeconds)*time.Second/3
			if over || !held.Valid(now) || s.taken && s.drained(d, now) {
				to(d, sidecarconfig.DeliveryRelay, d.reason)
			}
		}
	}
	if changed && s.cannotLoad() {
		// The other destinations cannot load a session either, and there is only one rescue for all.
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
// will not send. Its shards send in parallel. AMP may refuse one shard for a while, which the newest
// sample does not show. So no sample may be pending or sent repeatedly. The
// caller holds mu.
func (s *server) drained(d *destination, now time.Time) bool {
	q, life := s.prometheus.queues[d.block.URL], cmp.Or(d.held, d.session()).Life()
	if !q.sent.After(s.prometheus.lastReload.Add(min(maxDrain, life/10))) {
		return false
	}
	return q.pending == 0 || now.Sub(q.quiet) > min(quietDrain, life/10)
}

// planRescue serves the last files that Prometheus loaded, if Prometheus cannot load the user's
// files during a move. Without a load the move has no effect. It happens once per move, so that the
// user's alerts on failed reloads are silenced for a short time only. The caller holds mu.
func (s *server) planRescue(now time.Time) {
	moving := slices.ContainsFunc(s.destinations, func(d *destination) bool {
		return d.delivery == sidecarconfig.DeliveryMoving || d.holds && d.delivery == sidecarconfig.DeliveryRelay
	})
	switch {
	case s.rescue.IsZero():
		if moving && !s.rescued && s.cannotLoad() && s.last.exists() {
			s.rescue, s.rescued = now, true
			s.log.Warn("Prometheus cannot load its configuration: serving the last one that it loaded during the move to " +
				"the relay")
		}
	case !moving || now.Sub(s.rescue) > rescueLimit:
		s.rescue = time.Time{}
		s.log.Info("serving the user's own configuration again", "moved", !moving)
	}
}

// noteTaken records that Prometheus has loaded what is served. The caller holds mu.
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
		s.log.Warn("cannot keep a copy of the configuration that Prometheus has loaded", "error", err)
	}
}

// notTaken reports whether Prometheus still uses a session that is about to end or has
// ended. The caller holds mu.
func (s *server) notTaken(d *destination, now time.Time) bool {
	return d.holds && d.reason != "" && !s.taken && now.Sub(d.movedAt) > min(takenLimit, d.held.Life()/10)
}

// lastLoaded has the directories in the memory volume that keep the last files that
// Prometheus loaded. next has the files that will be served, candidate those that are served,
// and loaded those that Prometheus has certainly loaded.
type lastLoaded struct{ next, candidate, loaded string }

func lastLoadedIn(inState func(string) string) lastLoaded {
	return lastLoaded{inState("next"), inState("candidate"), inState("last-loaded")}
}

func (l lastLoaded) exists() bool { return exists(l.loaded) }

// serve turns the next files into the candidate. Call it after they are served, because until
// then Prometheus may load the candidate. Without next files there is no candidate.
func (l lastLoaded) serve() error {
	err := os.RemoveAll(l.candidate)
	if exists(l.next) {
		err = errors.Join(err, os.Rename(l.next, l.candidate))
	}
	return err
}

// keep makes the candidate, if there is one, the files that were loaded last.
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

// drop removes all directories when no destination can need them any more.
func (l lastLoaded) drop(log *slog.Logger) {
	if err := errors.Join(os.RemoveAll(l.next), os.RemoveAll(l.candidate), os.RemoveAll(l.loaded)); err != nil {
		log.Warn("cannot remove the copy of an earlier configuration", "error", err)
	}
}
