package audit

import (
	"cmp"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// Seen is the result of a round, for the status page.
type Seen struct {
	At time.Time
	// Pods is the number of pods per finding.
	Pods map[Kind]int
	// Notable are pods with problems, at most [MaxNotable]. More is the number of further ones.
	Notable []SeenPod
	More    int
	// Open are the workloads for which injection pauses.
	Open []breaker.Workload
	// Error is why a part of the round failed; empty if nothing failed.
	Error string
}

// MaxNotable limits the pods that are kept from a round.
const MaxNotable = 100

// SeenPod is a pod with a problem.
type SeenPod struct {
	Namespace, Name string
	Kind            Kind
	Reason          policy.Reason
	Text            string
	Since           time.Time
}

// see passes the round's result to Seen, if that is set.
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
