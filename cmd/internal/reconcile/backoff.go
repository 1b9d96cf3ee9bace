package reconcile

import (
	"math/rand/v2"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// The pauses are random, so that clusters that sync into one account do not call AWS at the same
// time. Clusters often start together, because a change goes to all repositories at once, and they
// fail together when IAM throttles them.

const (
	// firstSpread is the part of the interval over which the first passes are
	// spread: 10 seconds with the default interval.
	firstSpread = 1. / 60
	// jitter makes an interval longer and never shorter, so that no interval has two
	// passes.
	jitter = 0.1
	// firstRetry is the first pause after a failure. It doubles up to the policy's interval.
	firstRetry = 5 * time.Second

	// Tenants cause changes in the cluster. So changes wake sync at most passBurst times at once,
	// and then once per passEvery.
	passBurst = 2
	passEvery = 5 * time.Second
)

// bucket counts the passes that changes in the cluster may cause. Each pass takes one
// out, and one is added every passEvery.
type bucket struct {
	// spent is the number of passes missing in the bucket at the time at.
	spent float64
	at    time.Time
}

// take reports whether a pass may start now. If not, wait is the time until it may.
func (b *bucket) take(now time.Time) (wait time.Duration, ok bool) {
	b.spent = max(0, b.spent-float64(now.Sub(b.at))/float64(passEvery))
	b.at = now
	if excess := b.spent + 1 - passBurst; excess > 0 {
		return time.Duration(excess * float64(passEvery)), false
	}
	b.spent++
	return 0, true
}

// throttledProblem is a constant text, so that it is logged once and not in each pass.
const throttledProblem = "AWS throttles the calls to this account: sync does not call it for a while, even " +
	"after changes in the cluster"

// throttledAccounts records the accounts that AWS throttled, and until when sync does not call
// them. Package awsiam computes the pause.
type throttledAccounts struct {
	accounts map[string]*throttling
	// longest is the longest pause: the policy's interval.
	longest time.Duration
}

type throttling struct {
	until time.Time
	// skipped is true if this pass has skipped the account.
	skipped bool
}

// holds reports whether sync must not call the account at that time.
func (b *throttledAccounts) holds(account string, now time.Time) bool {
	return b != nil && b.accounts[account] != nil && now.Before(b.accounts[account].until)
}

// skip reports the same as [throttledAccounts.holds], and records that this pass skips the account.
func (b *throttledAccounts) skip(account string, now time.Time) bool {
	if !b.holds(account, now) {
		return false
	}
	b.accounts[account].skipped = true
	return true
}

// throttled records that AWS throttled a call to the account, and starts a pause. If that happens
// several times in one pass, only the first counts.
func (b *throttledAccounts) throttled(account string, pause time.Duration, now time.Time) {
	if b == nil || b.holds(account, now) {
		return
	}
	if b.accounts == nil {
		b.accounts = map[string]*throttling{}
	}
	b.accounts[account] = &throttling{until: now.Add(min(pause, max(b.longest, firstRetry)))}
}

// finish ends a pass. It removes the accounts that the pass called without being throttled.
func (b *throttledAccounts) finish(now time.Time) {
	for account, t := range b.accounts {
		if !t.skipped && !b.holds(account, now) {
			delete(b.accounts, account)
		}
		t.skipped = false
	}
}

// next returns when the first account can be called again; zero if none waits.
func (b *throttledAccounts) next() (first time.Time) {
	for _, t := range b.accounts {
		if first.IsZero() || t.until.Before(first) {
			first = t.until
		}
	}
	return first
}

// backoff computes when the next pass is due.
type backoff struct {
	// retry is the longest pause until the next pass after one that left something
	// undone; 0 if nothing is undone.
	retry time.Duration
	// regular is true after a pass that left nothing undone.
	regular bool
	// random returns a number from 0 to 1; nil means rand's.
	random func() float64
}

// record records the result of a pass. A pass that was caused by a change in the cluster does not
// make the pause longer. Otherwise a tenant with many changes could delay everything.
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

// pause returns the time until the next pass. After a pass that left something undone it is a
// growing time, at random between half of it and all of it, up to the interval. Otherwise it is
// the interval, and the first one is shortened at random.
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

// firstPause returns the random pause before a process's first pass.
func firstPause(p *policy.Policy) time.Duration {
	if p == nil {
		return 0
	}
	return part(time.Duration(p.Trust.Interval), firstSpread*rand.Float64())
}
