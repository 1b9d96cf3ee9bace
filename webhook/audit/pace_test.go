package audit

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)

func after(d time.Duration) time.Time { return begin.Add(d) }

// created is a time as the API server keeps it.
func created(d time.Duration) time.Time { return after(d).Truncate(time.Second) }

func TestPace(t *testing.T) {
	const between = time.Minute
	p := pace{between, map[breaker.Workload]attempt{}}
	w := breaker.Workload{Kind: "StatefulSet", Name: "p"}
	due := func(age, now time.Duration, hurry, want bool) {
		t.Helper()
		if got := p.due(w, created(age), after(now), hurry); got != want {
			t.Errorf("pod created at %s, at %s, hurry %v: due is %v, want %v", age, now, hurry, got, want)
		}
	}
	old := -time.Hour
	due(old, 0, false, true)
	p.record(w, created(old), after(0), true)
	// Its siblings follow one after another, unless they run nothing.
	due(old, between/2, false, false)
	due(old, between/2, true, true)
	due(old, between, false, true)
	// Successors that are found again wait, of the same second too.
	for wait, vain := firstWait, 0; vain < 9; vain++ {
		at := p.attempts[w].evicted.Sub(begin)
		for _, age := range []time.Duration{0, time.Second} {
			due(at+age, at+wait-time.Second, true, false)
			due(at+age, at+wait, false, true)
		}
		p.record(w, created(at+time.Second), after(at+wait), true)
		wait = min(2*wait, lastWait)
	}
	if got := p.attempts[w].vain; got != 9 {
		t.Errorf("%d evictions in vain, want 9", got)
	}

	other := breaker.Workload{Kind: "StatefulSet", Name: "other"}
	if !p.due(other, created(0), after(0), false) {
		t.Error("one workload waits for another")
	}
	// A refusal waits as well, but is no eviction.
	p.record(other, created(0), after(0), false)
	if p.due(other, created(time.Second), after(time.Second), false) || !p.due(other, created(time.Second), after(between), false) ||
		p.successor(other, created(time.Hour)) {
		t.Error("a refusal counts wrongly")
	}
	p.record(other, created(0), p.attempts[w].asked.Add(attemptLife+time.Second), true)
	if _, kept := p.attempts[w]; kept {
		t.Error("an old attempt is not forgotten")
	}
}

func TestHistory(t *testing.T) {
	const grace = time.Minute
	h := history{}
	see := func(now time.Duration, complete bool, f Finding) observed {
		t.Helper()
		pods := []observed{{Finding: f, uid: types.UID("u")}}
		if f.Kind == None {
			pods = nil
		}
		h.age(pods, after(now), func(policy.Reason) time.Duration { return grace }, map[string]bool{"": !complete})
		if pods == nil {
			return observed{}
		}
		return pods[0]
	}
	hangs := Finding{Kind: Hanging, Revision: "one"}
	later := Finding{Kind: Hanging, Revision: "two"}

	if o := see(0, true, hangs); o.Kind != Hanging {
		t.Errorf("at first sight: %s", o.Kind)
	}
	if o := see(grace-1, true, hangs); o.Kind != Hanging || o.Older {
		t.Errorf("within the grace: %+v", o)
	}
	if o := see(grace, true, hangs); o.Kind != Stuck || o.Older {
		t.Errorf("after the grace: %+v", o)
	}
	if o := see(grace, true, later); o.Kind != Stuck || !o.Older {
		t.Errorf("after a change of the policy: %+v", o)
	}
	see(2*grace, false, Finding{}) // not seen, because its namespace could not be read
	if o := see(2*grace, true, hangs); o.Kind != Stuck {
		t.Errorf("after an incomplete round: %s", o.Kind)
	}
	see(3*grace, true, Finding{Kind: Healthy})
	if o := see(4*grace, true, hangs); o.Kind != Hanging {
		t.Errorf("after it was healthy: %s", o.Kind)
	}
	see(5*grace, true, Finding{})
	if len(h) != 0 {
		t.Errorf("%d pods are remembered that are gone", len(h))
	}
	see(0, true, Finding{Kind: Missed, Revision: "one"})
	if o := see(grace, true, Finding{Kind: Missed, Revision: "two"}); !o.since.Equal(after(grace)) {
		t.Error("a finding under another policy is as old as the one before")
	}
}
