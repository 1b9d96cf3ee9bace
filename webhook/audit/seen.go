package audit

import (
	"cmp"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// Seen is what a round saw, for people to look at.
type Seen struct {
	At time.Time
	// Pods counts them by what was found.
	Pods map[Kind]int
	// Notable are pods that are not as they should be, at most [MaxNotable]; More is how
	// many there are beside them.
	Notable []SeenPod
	More    int
	// Open are the workloads for which injection pauses.
	Open []breaker.Workload
	// Error is what the round could not do; empty: nothing.
	Error string
}

// MaxNotable bounds what is kept of a round.
const MaxNotable = 100

// SeenPod is a pod that is not as it should be.
type SeenPod struct {
	Namespace, Name string
	Kind            Kind
	Reason          policy.Reason
	Text            string
	Since           time.Time
}

// see tells what the round has found, where someone wants to know.
func (a *auditor) see(pods []observed, now time.Time, err error) {
	if a.Seen == nil {
		return
	}
	seen := Seen{At: now, Pods: map[Kind]int{}}
	for _, o := range pods {
		seen.Pods[o.Kind]++
		switch {
		case o.Kind == Healthy || o.Kind == Outdated || o.Kind == None:
		case len(seen.Notable) == MaxNotable:
			seen.More++
		default:
			seen.Notable = append(seen.Notable, SeenPod{o.workload.Namespace, o.name, o.Kind, o.Reason, shorten(o.Text, 500), o.since})
		}
	}
	for w := range a.metrics.open {
		seen.Open = append(seen.Open, w)
	}
	slices.SortFunc(seen.Open, func(a, b breaker.Workload) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	if err != nil {
		seen.Error = shorten(err.Error(), 4000)
	}
	a.Seen(seen)
}
