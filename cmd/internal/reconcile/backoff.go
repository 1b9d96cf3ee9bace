package reconcile

import (
	"math/rand/v2"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// The pauses keep apart the clusters that sync into one account: they are often
// started together, by one change in everybody's repository, and fail together,
// when IAM throttles them.

const (
	// firstSpread is the share of the interval over which the first passes are
	// spread; 10 seconds at the default interval.
	firstSpread = 1. / 60
	// jitter makes an interval longer, never shorter, so that no interval has two
	// passes.
	jitter = 0.1
	// firstRetry doubles up to the policy's interval.
	firstRetry = 5 * time.Second

	// What happens in the cluster is what tenants do, so it wakes sync at most
	// passBurst times at once, and then every passEvery.
	passBurst = 2
	passEvery = 5 * time.Second
)

// bucket holds the passes that changes in the cluster may cause. A pass takes one
// out; one comes back every passEvery.
type bucket struct {
	// spent is how many are missing, as of the time at.
	spent float64
	at    time.Time
}

// take reports whether a pass may be made now; if not, wait is the time until then.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	b.spent = max(0, b.spent-float64(now.Sub(b.at))/float64(passEvery))
	b.at = now
	if excess := b.spent + 1 - passBurst; excess > 0 {
		return time.Duration(excess * float64(passEvery)), false
	}
	b.spent++
	return 0, true
}

// throttledProblem is the same in each pass, so that it is logged once.
const throttledProblem = "AWS throttles the calls to this account: it is left alone for a while, whatever changes in the cluster"

// throttledAccounts has the accounts that AWS throttled, and how long sync leaves them
// alone: package awsiam knows how long.
type throttledAccounts struct {
	accounts map[string]*throttling
	// longest is the policy's interval.
	longest time.Duration
}

type throttling struct {
	until time.Time
	// skipped: this pass has left the account alone.
	skipped bool
}

// holds reports whether the account is left alone at the time.
func (b *throttledAccounts) holds(account string, now time.Time) bool {
	return b != nil && b.accounts[account] != nil && now.Before(b.accounts[account].until)
}

// skip is [throttledAccounts.holds] for a pass, which then leaves the account alone.
func (b *throttledAccounts) skip(account string, now time.Time) bool {
	if !b.holds(account, now) {
		return false
	}
	b.accounts[account].skipped = true
	return true
}

// throttled notes that AWS throttled a call to the account, which is then left alone
// for the pause. Of several in one pass only the first counts.
func (b *throttledAccounts) throttled(account string, pause time.Duration, now time.Time) {
	if b == nil || b.holds(account, now) {
		return
	}
	if b.accounts == nil {
		b.accounts = map[string]*throttling{}
	}
	b.accounts[account] = &throttling{until: now.Add(min(pause, max(b.longest, firstRetry)))}
}

// finish ends a pass: it forgets the accounts that the pass reached without being
// throttled.
func (b *throttledAccounts) finish(now time.Time) {
	for account, t := range b.accounts {
		if !t.skipped && !b.holds(account, now) {
			delete(b.accounts, account)
		}
		t.skipped = false
	}
}

// next returns when the first account is due again; zero: none waits.
func (b *throttledAccounts) next() (first time.Time) {
	for _, t := range b.accounts {
		if first.IsZero() || t.until.Before(first) {
			first = t.until
		}
	}
	return first
}

// backoff is when the next pass is due.
type backoff struct {
	// retry is the longest pause until the pass after one that left something
	// undone; 0: nothing was.
	retry time.Duration
	// regular: there was a pass that left nothing undone.
	regular bool
	// random is 0 to 1; nil: rand's.
	random func() float64
}

// record counts a pass. One that a change in the cluster caused does not make the
// pause longer: otherwise a tenant that changes something often could put off
// everything.
func (p *backoff) record(inSync, caused bool, interval time.Duration) {
	switch {
	case inSync:
		p.retry = 0
	case caused:
		p.retry = min(max(p.retry, firstRetry), interval)
	default:
		p.retry = min(max(2*p.retry, firstRetry), interval)
	}
}

// pause is the time until the next pass: after one that left something undone a
// while that grows, at random between its half and its whole, up to the interval;
// else the interval, of which the first is cut short at random.
func (p *backoff) pause(interval time.Duration) time.Duration {
	switch {
	case p.retry > 0:
		return part(p.retry, 0.5+0.5*p.draw())
	case !p.regular:
		p.regular = true
		return part(interval, p.draw())
	}
	return part(interval, 1+jitter*p.draw())
}

func (p *backoff) draw() float64 {
	if p.random != nil {
		return p.random()
	}
	return rand.Float64()
}

func part(d time.Duration, share float64) time.Duration { return time.Duration(float64(d) * share) }

// firstPause comes before a process's first pass.
func firstPause(p *policy.Policy) time.Duration {
	if p == nil {
		return 0
	}
	return part(time.Duration(p.Trust.Interval), firstSpread*rand.Float64())
}
