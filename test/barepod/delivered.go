package barepod

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Count is how often the pod's Prometheus has scraped the target so far.
func (p *Pod) Count() int { return int(p.count.Load()) }

// Missing returns those of the scrapes from first to last that are not in the workspace. A
// scrape that Prometheus itself calls failed is none. Refused are the codes of AMP's errors
// that drop a sample by design.
func (p *Pod) Missing(first, last int, refused ...string) (missing []int) {
	there := map[int]awstest.Kept{}
	var times []awstest.Kept
	for _, k := range p.site.Kept(p.Workspace.ID, scrapes) {
		// NaN marks the series as stale, at the time of a scrape that failed.
		if !math.IsNaN(k.Value) && (k.Stored || slices.Contains(refused, k.Code)) {
			there[int(k.Value)] = k
			times = append(times, k)
		}
	}
	slices.SortFunc(times, func(a, b awstest.Kept) int { return a.Time.Compare(b.Time) })
	failed := map[int64]bool{}
	for _, k := range p.site.Kept(p.Workspace.ID, "up") {
		if k.Value == 0 && (k.Stored || slices.Contains(refused, k.Code)) {
			failed[k.Time.UnixMilli()] = true
		}
	}
	for n := first; n <= last; n++ {
		if _, ok := there[n]; ok {
			continue
		}
		if !p.failedBetween(n, times, failed) {
			missing = append(missing, n)
		}
	}
	return missing
}

// failedBetween reports whether a scrape failed between those before and after n, and uses
// that failure up.
func (p *Pod) failedBetween(n int, times []awstest.Kept, failed map[int64]bool) bool {
	var after, before int64
	for _, k := range times {
		if int(k.Value) < n {
			before = k.Time.UnixMilli()
		} else if after == 0 {
			after = k.Time.UnixMilli()
		}
	}
	for at := range failed {
		if at > before && (at < after || after == 0) {
			delete(failed, at)
			return true
		}
	}
	return false
}

// EventuallyDelivered waits until each scrape of the pod's Prometheus, from first up to now,
// is in the workspace, and returns how many these are. See [Pod.Missing].
func (p *Pod) EventuallyDelivered(tb testing.TB, first int, refused ...string) int {
	tb.Helper()
	testkit.Eventually(tb, "a scrape", func() bool { return p.Count() >= first })
	last := p.Count()
	// The last scrape may have been counted, and not be stored yet.
	testkit.Eventually(tb, "another scrape", func() bool { return p.Count() > last+1 })
	testkit.EventuallyEmpty(tb, func() string {
		if missing := p.Missing(first, last, refused...); len(missing) > 0 {
			return fmt.Sprintf("scrapes %d to %d: not in the workspace: %v", first, last, missing)
		}
		return ""
	})
	return last - first + 1
}

// Refused are the remote writes to the pod's workspace that were not stored.
func (p *Pod) Refused() []awstest.Write {
	return slices.DeleteFunc(p.site.Writes(p.Workspace.ID), awstest.Write.Stored)
}
