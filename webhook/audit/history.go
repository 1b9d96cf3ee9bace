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

// observed is what a round keeps about a pod.
type observed struct {
	Finding
	name               string
	uid                types.UID
	resourceVersion    string
	created            time.Time
	ready, terminating bool
	workload           breaker.Workload
	// controller is the pod's controller; nil if no controller would create the pod again.
	controller *metav1.OwnerReference
	// template is the revision of the StatefulSet's template for the pod.
	template string
	// since is when the finding began.
	since time.Time
	// status is the address of the sidecar's status; zero if there is none.
	status netip.AddrPort
	// news are the messages of the status. unread is true if this round could not read it.
	news   []check.News
	unread bool
}

// attributes returns what log lines say about the pod.
func (o *observed) attributes() []any {
	return []any{
		"namespace", o.workload.Namespace, "workload", shorten(o.workload.String(), 200), "pod", o.name, "finding", o.Kind,
	}
}

func observe(p *Pod, f Finding) observed {
	m := &p.Record.Metadata
	return observed{
		Finding: f, name: p.Metadata.Name, uid: m.UID, resourceVersion: m.ResourceVersion, created: m.CreationTimestamp,
		ready: p.ready(), terminating: p.terminating(), workload: p.workload(), controller: p.controller(), status: p.statusAddress(),
		template: p.Metadata.Labels["controller-revision-hash"],
	}
}

// sortPods sorts pods, so that the order does not depend on the API server.
func sortPods(pods []observed) {
	slices.SortFunc(pods, func(a, b observed) int {
		return cmp.Or(cmp.Compare(a.workload.Namespace, b.workload.Namespace), cmp.Compare(a.name, b.name))
	})
}

// history records since when each pod has its finding.
type history map[types.UID]observation

// maxRemembered is the number of pods, and of events, that are remembered for a namespace that
// could not be read completely. Without a limit, pods that come and go would fill the memory.
const maxRemembered = 10_000

type observation struct {
	namespace string
	kind      Kind
	revision  string
	since     time.Time
	// grace is how long the finding may last.
	grace time.Duration
}

// age sets since when the findings exist, and turns Hanging into Stuck after the grace period.
// It removes pods that do not exist any more, unless their namespace could not be read.
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
		// After a change of the policy a finding begins again. But a hanging pod still hangs for
		// the reason with which it was first seen.
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
