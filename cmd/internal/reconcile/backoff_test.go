package reconcile

import (
	"testing"
	"time"
)

// What the next pass waits for, with the least and the most that chance adds.
func TestPauseGrowsWithFailuresThatTenantsDidNotCause(t *testing.T) {
	const interval = 10 * time.Minute
	least, most := &backoff{random: func() float64 { return 0 }}, &backoff{random: func() float64 { return 1 }}
	for i, step := range []struct {
		inSync      bool
		least, most time.Duration
	}{
		{false, 2500 * time.Millisecond, 5 * time.Second},
		{false, 5 * time.Second, 10 * time.Second},
		{true, 0, interval}, // the first interval begins anywhere
		{true, interval, 11 * time.Minute},
		{false, 2500 * time.Millisecond, 5 * time.Second},
		{true, interval, 11 * time.Minute},
	} {
		for p, want := range map[*backoff]time.Duration{least: step.least, most: step.most} {
			p.record(step.inSync, false, interval)
			if got := p.pause(interval); got != want {
				t.Errorf("step %d: %v, want %v", i, got, want)
			}
		}
	}
	// What tenants do does not put the next pass off.
	tenants := &backoff{random: func() float64 { return 1 }}
	for range 20 {
		tenants.record(false, true, interval)
	}
	if got := tenants.pause(interval); got != firstRetry {
		t.Errorf("after many failures that changes in the cluster caused %v, want %v", got, firstRetry)
	}
	for range 20 {
		most.record(false, false, interval)
	}
	if got := most.pause(interval); got != interval {
		t.Errorf("after many failures %v, want no more than the interval", got)
	}
}

// However often something changes, it causes few passes.
func TestTenantsCauseFewPasses(t *testing.T) {
	begin := time.Unix(1000, 0)
	var b bucket
	passes, step := 0, 100*time.Millisecond
	const span = time.Minute
	for at := time.Duration(0); at < span; at += step {
		if wait, ok := b.take(begin.Add(at)); ok {
			passes++
		} else if wait <= 0 || wait > passEvery {
			t.Fatalf("at %v: wait %v", at, wait)
		} else if _, early := (&bucket{b.spent, b.at}).take(b.at.Add(wait - time.Millisecond)); early {
			t.Fatalf("at %v: a pass before the wait of %v is over", at, wait)
		} else if _, ok := (&bucket{b.spent, b.at}).take(b.at.Add(wait + time.Millisecond)); !ok {
			t.Fatalf("at %v: no pass after the wait of %v", at, wait)
		}
	}
	if want := passBurst + int(span/passEvery); passes > want || passes < want-1 {
		t.Errorf("%d passes in %v, want %d", passes, span, want)
	}
	for range passBurst {
		if _, ok := b.take(begin.Add(time.Hour)); !ok {
			t.Error("the bucket does not fill up again")
		}
	}
	if _, ok := b.take(begin.Add(time.Hour)); ok {
		t.Error("the bucket holds more than its burst after a quiet hour")
	}
}

// A throttled account keeps its pause, and other accounts do not wait.
func TestThrottledAccountKeepsItsPause(t *testing.T) {
	now := time.Unix(1000, 0)
	b := &throttledAccounts{longest: time.Minute}
	for _, test := range []struct{ pause, want time.Duration }{
		{5 * time.Second, 5 * time.Second}, {80 * time.Second, time.Minute}, {time.Second, time.Second},
	} {
		b.throttled("a", test.pause, now)
		b.throttled("a", time.Hour, now.Add(test.want/2)) // in the same pass
		if got := b.next().Sub(now); got != test.want {
			t.Fatalf("waits %v, want %v", got, test.want)
		}
		// Passes that events cause meanwhile leave it alone, and forget nothing, be
		// it that the wait ends while such a pass is made.
		if !b.skip("a", now.Add(test.want-1)) || b.skip("b", now) {
			t.Fatal("the wrong account waits")
		}
		b.finish(now.Add(test.want))
		now = now.Add(test.want)
		if b.skip("a", now) {
			t.Fatal("it is never looked at again")
		}
	}
	if b.finish(now); !b.next().IsZero() {
		t.Error("a pass that reached the account does not forget it")
	}
	var none *throttledAccounts
	if none.throttled("a", time.Second, now); none.skip("a", now) {
		t.Error("without a controller an account waits")
	}
}
