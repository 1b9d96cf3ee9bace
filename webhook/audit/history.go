package audit

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// observed is what a round keeps of a pod.
type observed struct {
	Finding
	name               string
	uid                types.UID
	resourceVersion    string
	created            time.Time
	ready, terminating bool
	workload           breaker.Workload
	// controller is nil for a pod that nobody would create again.
	controller *metav1.OwnerReference
	// template is the revision of a StatefulSet's template that the pod was made of.
	template string
	// since is when the finding was first made.
	since time.Time
	// status is where its sidecar serves its status; zero: it does not.
	status netip.AddrPort
	// news is what the status says; unread: it could not be read in this round.
	news   []check.News
	unread bool
}

func observe(p *Pod, f Finding) observed {
	m := &p.Record.Metadata
	return observed{
		Finding: f, name: p.Metadata.Name, uid: m.UID, resourceVersion: m.ResourceVersion, created: m.CreationTimestamp,
		ready: p.ready(), terminating: p.terminating(), workload: p.workload(), controller: p.controller(), status: p.statusAddress(),
		template: p.Metadata.Labels["controller-revision-hash"],
	}
}

// sortPods puts them in an order that does not depend on the API server's.
func sortPods(pods []observed) {
	slices.SortFunc(pods, func(a, b observed) int {
		return cmp.Or(cmp.Compare(a.workload.Namespace, b.workload.Namespace), cmp.Compare(a.name, b.name))
	})
}

// history is since when which pod is found as it is.
type history map[types.UID]observation

// maxRemembered is how many pods, and how many events, of a namespace are remembered
// that could not be read in full: else what comes and goes there fills the memory.
const maxRemembered = 10_000

type observation struct {
	namespace string
	kind      Kind
	revision  string
	since     time.Time
	// grace is for how long it may be so.
	grace time.Duration
}

// age fills in since when the findings hold, and makes a pod Stuck that hangs
// for longer than its grace. Pods that are not seen any more are forgotten, unless
// their namespace could not be read.
func (h *history) age(pods []observed, now time.Time, grace func(policy.Reason) time.Duration, unread map[string]bool) {
	next, kept := history{}, map[string]int{}
	for uid, s := range *h {
		if kept[s.namespace]++; unread[s.namespace] && kept[s.namespace] <= maxRemembered {
			next[uid] = s
		}
	}
	for i := range pods {
		o := &pods[i]
		if o.Kind == None {
			continue
		}
		s, seen := (*h)[o.uid]
		// A changed policy begins another finding; but a pod that hangs goes on
		// hanging, and what it was first seen to hang on is to blame.
		if !seen || s.kind != o.Kind || (s.revision != o.Revision && o.Kind != Hanging) {
			s = observation{namespace: o.workload.Namespace, kind: o.Kind, revision: o.Revision, since: now}
		}
		s.grace = grace(o.Reason)
		next[o.uid] = s
		o.since = s.since
		if o.Kind == Hanging {
			o.Older = o.Older || s.revision != o.Revision
			if now.Sub(s.since) >= s.grace {
				o.Kind = Stuck
			}
		}
	}
	*h = next
}
