package sync

import (
	"testing"
	"time"
)

// What the next pass waits for, with the least and the most that chance adds.
func TestPace(t *testing.T) {
	const interval = 10 * time.Minute
	least, most := &pace{random: func() float64 { return 0 }}, &pace{random: func() float64 { return 1 }}
	for i, step := range []struct {
		inStep      bool
		least, most time.Duration
	}{
		{false, 2500 * time.Millisecond, 5 * time.Second},
		{false, 5 * time.Second, 10 * time.Second},
		{true, 0, interval}, // the first interval begins anywhere
		{true, interval, 11 * time.Minute},
		{false, 2500 * time.Millisecond, 5 * time.Second},
		{true, interval, 11 * time.Minute},
	} {
		for p, want := range map[*pace]time.Duration{least: step.least, most: step.most} {
			p.over(step.inStep, interval)
			if got := p.pause(interval); got != want {
				t.Errorf("step %d: %v, want %v", i, got, want)
			}
		}
	}
	for range 20 {
		most.over(false, interval)
	}
	if got := most.pause(interval); got != interval {
		t.Errorf("after many failures %v, want no more than the interval", got)
	}
}
