package sync

import (
	"math/rand/v2"
	"time"
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
)

// pace is when the next pass is due.
type pace struct {
	// retry is the longest pause until the pass after one that left something
	// undone; 0: nothing was.
	retry time.Duration
	// regular: there was a pass that left nothing undone.
	regular bool
	// random is 0 to 1; nil: rand's.
	random func() float64
}

// over counts a pass.
func (p *pace) over(inStep bool, interval time.Duration) {
	if inStep {
		p.retry = 0
	} else {
		p.retry = min(max(2*p.retry, firstRetry), interval)
	}
}

// pause is the time until the next pass: after one that left something undone a
// while that grows, at random between its half and its whole, up to the interval;
// else the interval, of which the first is cut short at random.
func (p *pace) pause(interval time.Duration) time.Duration {
	switch {
	case p.retry > 0:
		return part(p.retry, 0.5+0.5*p.draw())
	case !p.regular:
		p.regular = true
		return part(interval, p.draw())
	}
	return part(interval, 1+jitter*p.draw())
}

func (p *pace) draw() float64 {
	if p.random != nil {
		return p.random()
	}
	return rand.Float64()
}

func part(d time.Duration, share float64) time.Duration { return time.Duration(float64(d) * share) }

// firstPause comes before a process's first pass.
func (c *controller) firstPause() time.Duration {
	p := c.policy.current()
	if p == nil {
		return 0
	}
	return part(time.Duration(p.Trust.Interval), firstSpread*rand.Float64())
}
