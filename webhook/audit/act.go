package audit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/util/retry"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// forgetting is how long an entry of the breaker stays after its revision is out of date,
// because a replica of the webhook may still have the older policy.
const forgetting = 10 * time.Minute

// unseen is how long an entry stays after the last pod of its workload.
const unseen = time.Hour

// outdated records since when an entry has no purpose, and how long it may stay.
type outdated struct {
	since time.Time
	stay  time.Duration
}

// Limits of one round, so that it ends soon. Namespaces take turns.
const (
	evictionsPerRound     = 200
	evictionsPerNamespace = 20
)

// breakerUpdate is the change of the breaker in one round.
type breakerUpdate struct {
	state breaker.State
	// opened are the workloads for which it opened. For those in closed, injection is tried again.
	opened, closed map[breaker.Workload]*observed
}

// conflictBackoff is for writes of the breaker that conflict with another writer.
var conflictBackoff = wait.Backoff{Steps: 3, Duration: 10 * time.Millisecond, Factor: 1}

// updateBreaker opens the breaker for the workloads of stuck pods, and removes
// entries without a purpose. After an error the state is unchanged.
func (a *auditor) updateBreaker(
	ctx context.Context,
	state breaker.State,
	namespaces map[string]policy.Injection,
	pods []observed,
	now time.Time,
	unread map[string]bool,
) (breakerUpdate, error) {
	result := breakerUpdate{state: state, opened: map[breaker.Workload]*observed{}, closed: map[breaker.Workload]*observed{}}
	opening := map[breaker.Workload]*observed{}
	today := map[breaker.Workload]*observed{}
	revisions := map[breaker.Entry]bool{}
	for i := range pods {
		o := &pods[i]
		if o.Revision == "" || o.terminating {
			continue
		}
		today[o.workload] = o
		revisions[breaker.Entry{Workload: breaker.All(o.workload.Namespace), Revision: o.Revision}] = true
		_, open := state.Open(o.workload, o.Revision)
		if o.Kind == Stuck && !open && a.attributable(o) {
			opening[o.workload] = o
		}
	}
	gone := a.expire(state, namespaces, today, revisions, now, unread)
	// In a fixed order, so that a second attempt gives the same result.
	workloads := slices.SortedFunc(maps.Keys(opening), func(x, y breaker.Workload) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name))
	})
	var entries []breaker.Entry
	for _, w := range workloads {
		entries = append(
			entries,
			breaker.Entry{
				Workload: w,
				Revision: opening[w].Revision,
				Cause:    string(opening[w].Reason),
				Since:    now.UTC().Truncate(time.Second),
			},
		)
	}
	var next breaker.State
	err := retry.RetryOnConflict(conflictBackoff, func() (err error) {
		next, err = store.Change(ctx, a.cluster.ConfigMaps(a.Namespace), func(s breaker.State) breaker.State {
			for _, e := range gone {
				s = s.Remove(e)
			}
			return s.With(entries...)
		})
		return err
	})
	if err != nil {
		a.metrics.breakers(state, a.outdated)
		return result, err
	}
	result.state = next
	full := 0
	for _, w := range workloads {
		o := opening[w]
		if _, open := next.Open(w, o.Revision); open {
			result.opened[w] = o
		} else {
			full++
		}
	}
	for _, e := range gone {
		if o := today[e.Workload]; o != nil {
			result.closed[e.Workload] = o
		}
	}
	a.metrics.breakers(next, a.outdated)
	if full > 0 {
		err = fmt.Errorf(
			"ConfigMap %s is full: injection does not pause for %d workloads with hanging pods; correct the sidecar's "+
				"image or the policy",
			breaker.ConfigMap,
			full,
		)
	}
	return result, err
}

// announce reports the changes of the breaker as events and in the log. An error of an event does
// not stop anything else.
func (a *auditor) announce(ctx context.Context, t breakerUpdate, now time.Time) {
	var errs []error
	for w, o := range t.opened {
		if !a.events.may(w.Namespace) {
			continue
		}
		a.Logger.Warn(
			"circuit breaker opens",
			"namespace",
			w.Namespace,
			"workload",
			shorten(w.String(), 200),
			"pod",
			o.name,
			"cause",
			o.Reason,
			"message",
			shorten(o.Text, 500),
		)
		errs = append(errs, a.events.record(ctx, o, corev1.EventTypeWarning, eventOpen, fmt.Sprintf(
			"hangs on the config sidecar since %s (%s: %s). Injection pauses for %s until the policy or the sidecar's "+
				"image changes; %s",
			minutes(now.Sub(o.since)), o.Reason, shorten(o.Text, 500), w, afterwards(o))))
	}
	for w, o := range t.closed {
		if a.events.may(w.Namespace) {
			errs = append(
				errs,
				a.events.record(
					ctx,
					o,
					corev1.EventTypeNormal,
					eventClosed,
					fmt.Sprintf("injection of %s is tried again: the policy or the sidecar's image has changed", w),
				),
			)
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.Logger.Error("audit", "error", shorten(err.Error(), 2000))
	}
}

func afterwards(o *observed) string {
	if o.controller == nil {
		return "no controller creates the pod again: delete it and create it again, and it starts without the sidecar"
	}
	return "the pod is evicted, and its successor starts without the sidecar"
}

// attributable reports whether a hanging pod shows that today's revision does not work. A pod
// that hangs with the injection of an older policy does not show that. But if it is already the
// successor of such a pod, then something changed its injection on the way, and the policy's
// change is not the reason.
func (a *auditor) attributable(o *observed) bool {
	return !o.Older || a.pace.successor(o.workload, o.created)
}

// expire returns the entries to remove: those of namespaces without the label, of revisions that
// no pod has any more, of workloads without pods for a long time, and those that
// a quota caused some time ago.
func (a *auditor) expire(
	state breaker.State,
	namespaces map[string]policy.Injection,
	today map[breaker.Workload]*observed,
	revisions map[breaker.Entry]bool,
	now time.Time,
	unread map[string]bool,
) (gone []breaker.Entry) {
	next := map[string]outdated{}
	for _, e := range state.Entries() {
		_, labelled := namespaces[e.Namespace]
		o, seen := today[e.Workload]
		current := seen && o.Revision == e.Revision
		if e.Workload == breaker.All(e.Namespace) {
			seen, current = false, revisions[breaker.Entry{Workload: e.Workload, Revision: e.Revision}]
		}
		stay := unseen
		if seen {
			stay = forgetting
		}
		switch before, known := a.outdated[e.Key()]; {
		case !labelled, e.Cause == breaker.OverQuota && now.Sub(e.Since) > breaker.QuotaRetry:
			gone = append(gone, e)
		case unread[e.Namespace]:
			if known {
				next[e.Key()] = before
			}
		case current:
		case !known || before.stay != stay:
			next[e.Key()] = outdated{now, stay}
		case now.Sub(before.since) >= stay:
			gone = append(gone, e)
		default:
			next[e.Key()] = before
		}
	}
	a.outdated = next
	return gone
}

// evictStuck evicts stuck pods. They run nothing, and no disruption budget protects a
// pending pod. It keeps a pod if its successor would get the same injection, because
// that would hang as well.
func (a *auditor) evictStuck(ctx context.Context, pods []observed, t breakerUpdate, now time.Time) error {
	var due []*observed
	for i := range pods {
		o := &pods[i]
		if o.Kind != Stuck || o.controller == nil {
			continue
		}
		_, open := t.state.Open(o.workload, o.Revision)
		hangsAgain := o.Revision != "" && a.attributable(o) && !open
		if !hangsAgain && (t.opened[o.workload] != nil || a.pace.due(o.workload, o.created, now, true)) {
			due = append(due, o)
		}
	}
	var errs []error
	for _, o := range inTurns(due, evictionsPerNamespace, evictionsPerRound) {
		errs = append(errs, a.evict(ctx, o, now, true))
	}
	return errors.Join(errs...)
}

// inTurns picks pods from all namespaces in turns: first one of each, then a second one,
// up to a limit per namespace and a limit for all. The pods of a namespace keep their order.
func inTurns(pods []*observed, each, all int) (picked []*observed) {
	queues := map[string][]*observed{}
	for _, o := range pods {
		if q := queues[o.workload.Namespace]; len(q) < each {
			queues[o.workload.Namespace] = append(q, o)
		}
	}
	namespaces := slices.Sorted(maps.Keys(queues))
	for turn := range each {
		for _, n := range namespaces {
			if q := queues[n]; turn < len(q) && len(picked) < all {
				picked = append(picked, q[turn])
			}
		}
	}
	return picked
}

// repair evicts missed and outdated pods, one per workload. It does so only while all
// other pods of the workload are ready, and only if the API server accepts a dry run of the
// successor. The pods that waited longest come first. Otherwise pods that disruption budgets
// protect would use up the attempts of all others.
func (a *auditor) repair(ctx context.Context, pods []observed, now time.Time) error {
	chosen := map[breaker.Workload]*observed{}
	unsettled := map[breaker.Workload][]string{}
	for i := range pods {
		o := &pods[i]
		if o.terminating || !o.ready {
			unsettled[o.workload] = append(unsettled[o.workload], o.name)
		}
		repairable := (o.Kind == Missed || o.Kind == Outdated) && o.controller != nil
		if chosen[o.workload] == nil && repairable && now.Sub(o.since) >= a.Settle && a.pace.due(o.workload, o.created, now, false) {
			chosen[o.workload] = o
		}
	}
	candidates := slices.SortedFunc(maps.Values(chosen), func(x, y *observed) int {
		return cmp.Or(
			a.pace.attempts[x.workload].asked.Compare(a.pace.attempts[y.workload].asked),
			x.since.Compare(y.since),
			cmp.Compare(x.workload.Namespace, y.workload.Namespace),
			cmp.Compare(x.name, y.name),
		)
	})
	var errs []error
	for _, o := range candidates {
		if slices.ContainsFunc(unsettled[o.workload], func(name string) bool { return name != o.name }) {
			continue
		}
		if !a.bucket.TryAccept() {
			break
		}
		// A running pod stays if its successor would be refused.
		why, err := a.cluster.trySuccessor(ctx, o)
		switch {
		case err != nil:
			errs = append(errs, err)
		case why != "":
			a.metrics.evictions.WithLabelValues(resultKept).Inc()
			a.pace.record(o.workload, o.created, now, false)
			errs = append(errs, a.refused(ctx, o, "it is not evicted: "+why))
		default:
			errs = append(errs, a.evict(ctx, o, now, false))
		}
	}
	return errors.Join(errs...)
}

// evict evicts a pod and reports it.
func (a *auditor) evict(ctx context.Context, o *observed, now time.Time, unchanged bool) error {
	result, err := a.cluster.evict(ctx, *o, unchanged)
	a.metrics.evictions.WithLabelValues(result).Inc()
	a.Logger.Info("eviction", append(o.attributes(), "result", result)...)
	a.pace.record(o.workload, o.created, now, result == resultEvicted)
	switch result {
	case resultEvicted:
		if !a.events.may(o.workload.Namespace) {
			return nil
		}
		return a.events.record(
			ctx,
			o,
			corev1.EventTypeNormal,
			eventEvicted,
			fmt.Sprintf("evicted, because it was %s; its successor is injected as the policy says today", o.Kind),
		)
	case resultRefused:
		return a.refused(ctx, o, "its eviction is refused for now, by a PodDisruptionBudget or because the API server "+
			"is busy; the auditor tries again")
	}
	return err
}

// refused reports, once per pod and finding, that an eviction has to wait.
func (a *auditor) refused(ctx context.Context, o *observed, text string) error {
	object, _ := target(o)
	r := eventKey{o.workload.Namespace, object.UID, eventRefused, text}
	if a.events.sent[r] || !a.events.may(o.workload.Namespace) {
		return nil
	}
	if err := a.events.record(ctx, o, corev1.EventTypeWarning, eventRefused, text); err != nil {
		return err
	}
	a.events.sent[r] = true
	return nil
}
