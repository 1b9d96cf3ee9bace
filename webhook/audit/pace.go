package audit

import (
	"time"

	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// pace limits evictions, so that they do no harm. The pods of a workload are evicted one after
// another. If the successors need an eviction too, each next attempt waits longer.
// Otherwise a pod that never reaches the webhook would be evicted forever.
type pace struct {
	// between is the minimum time between two evictions of a workload.
	between  time.Duration
	attempts map[breaker.Workload]attempt
}

type attempt struct {
	// asked is when an eviction was last requested, and evicted when one was granted.
	asked, evicted time.Time
	// vain counts evictions without effect: the evicted pod was created after the previous
	// eviction.
	vain int
}

const (
	// firstWait is the pause after the first eviction without effect. It doubles up to lastWait.
	firstWait = 5 * time.Minute
	lastWait  = 6 * time.Hour
	// attemptLife is how long an attempt counts.
	attemptLife = 24 * time.Hour
)

// successor reports whether a pod was created after the workload's last eviction. The
// API server stores whole seconds, so a pod of the same second counts as a successor.
func (p *pace) successor(w breaker.Workload, created time.Time) bool {
	last := p.attempts[w]
	return !last.evicted.IsZero() && !created.Before(last.evicted.Truncate(time.Second))
}

// due reports whether a pod of the workload may be evicted now. With hurry, the time between
// two pods of a workload does not count. That is for pods that run nothing.
func (p *pace) due(w breaker.Workload, created, now time.Time, hurry bool) bool {
	last := p.attempts[w]
	if p.successor(w, created) && now.Before(last.evicted.Add(min(firstWait<<min(last.vain, 10), lastWait))) {
		return false
	}
	return hurry || !now.Before(last.asked.Add(p.between))
}

// record records that an eviction was requested, and whether it was granted.
func (p *pace) record(w breaker.Workload, created, now time.Time, granted bool) {
	for other, a := range p.attempts {
		if now.Sub(a.asked) > attemptLife {
			delete(p.attempts, other)
		}
	}
	next := p.attempts[w]
	next.asked = now
	if granted {
		if p.successor(w, created) {
			next.vain++
		}
		next.evicted = now
	}
	p.attempts[w] = next
}
