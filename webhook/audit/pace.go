package audit

import (
	"time"

	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// pace keeps evictions from doing harm: a workload's pods go one after another,
// and one whose successors need evicting too is left alone for longer and longer.
// Without that, a pod which admission never gets to see would be evicted forever.
type pace struct {
	// between is the least time between two evictions of a workload.
	between  time.Duration
	attempts map[breaker.Workload]attempt
}

type attempt struct {
	// asked is when an eviction was last asked for, evicted when one was granted.
	asked, evicted time.Time
	// vain counts evictions of pods that were created after the one before.
	vain int
}

const (
	// firstWait doubles with each attempt in vain, up to lastWait.
	firstWait = 5 * time.Minute
	lastWait  = 6 * time.Hour
	// attemptLife is when an attempt no longer matters.
	attemptLife = 24 * time.Hour
)

// successor reports whether a pod came after the workload's last eviction. The
// API server keeps times in seconds: one of the same second counts as such.
func (p *pace) successor(w breaker.Workload, created time.Time) bool {
	last := p.attempts[w]
	return !last.evicted.IsZero() && !created.Before(last.evicted.Truncate(time.Second))
}

// due reports whether a pod of the workload may be evicted now. hurry leaves out
// the time between siblings, for pods that run nothing.
func (p *pace) due(w breaker.Workload, created, now time.Time, hurry bool) bool {
	last := p.attempts[w]
	if p.successor(w, created) && now.Before(last.evicted.Add(min(firstWait<<min(last.vain, 10), lastWait))) {
		return false
	}
	return hurry || !now.Before(last.asked.Add(p.between))
}

// record notes that an eviction was asked for, and whether it was granted.
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
