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

	"github.com/ampbridge/ampbridge/audit/breaker"
	"github.com/ampbridge/ampbridge/policy"
)

// forgetting is for how long an entry of the breaker outlives the trial that it
// is about: a webhook's replica may still hold the older policy.
const forgetting = 10 * time.Minute

// turn opens the breaker for the workloads of stuck pods, and forgets the
// entries that are about nothing any more. fresh are those it opened.
func (a *auditor) turn(ctx context.Context, state breaker.State, namespaces map[string]policy.Injection, pods []observed, now time.Time, complete bool) (fresh map[breaker.Workload]bool, err error) {
	fresh = map[breaker.Workload]bool{}
	opening := map[breaker.Workload]*observed{}
	today := map[breaker.Workload]*observed{}
	for i := range pods {
		o := &pods[i]
		if o.Trial == "" || o.leaving {
			continue
		}
		today[o.workload] = o
		_, open := state.Open(o.workload, o.Trial)
		if o.Kind == Stuck && !open && a.blames(o) {
			opening[o.workload] = o
		}
	}
	gone := a.expire(state, namespaces, today, now, complete)
	state, err = breaker.Change(ctx, a.cluster.ConfigMaps(a.Namespace), func(s breaker.State) breaker.State {
		for _, w := range gone {
			s = s.Without(w)
		}
		for w, o := range opening {
			s = s.With(breaker.Entry{Workload: w, Trial: o.Trial, Why: string(o.Reason), Since: now.UTC().Truncate(time.Second)})
		}
		return s
	})
	if err != nil {
		return nil, err
	}
	var errs []error
	for w, o := range opening {
		fresh[w] = true
		delete(a.outdated, w)
		a.Logger.Warn("circuit breaker opens", "namespace", w.Namespace, "workload", w.String(), "pod", o.name, "why", o.Reason, "message", shorten(o.Text, 500))
		errs = append(errs, a.teller.tell(ctx, o, corev1.EventTypeWarning, eventOpen, fmt.Sprintf(
			"hangs on the config sidecar since %s (%s: %s). Injection pauses for %s until the policy or the sidecar's image changes; %s",
			minutes(now.Sub(o.since)), o.Reason, shorten(o.Text, 500), w, afterwards(o))))
	}
	for _, w := range gone {
		if o := today[w]; o != nil {
			errs = append(errs, a.teller.tell(ctx, o, corev1.EventTypeNormal, eventClosed, fmt.Sprintf("injection of %s is tried again: the policy or the sidecar's image has changed", w)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.Logger.Error("audit", "error", err) // an event that is missing holds up nothing
	}
	a.metrics.breakers(state, a.outdated)
	return fresh, nil
}

func afterwards(o *observed) string {
	if o.controller == nil {
		return "nothing creates the pod again: delete it and create it again, and it starts without the sidecar"
	}
	return "the pod is evicted, and its successor starts without the sidecar"
}

// blames tells whether a pod's hanging says something about today's trial. One
// that hangs on what an older policy gave it does not, unless it is already the
// successor of such a one: then what it carries was changed on its way, and not
// by time.
func (a *auditor) blames(o *observed) bool {
	return !o.Older || a.pace.successor(o.workload, o.created)
}

// expire are the workloads whose entries go: of namespaces without the label,
// and of trials that nobody makes any more.
func (a *auditor) expire(state breaker.State, namespaces map[string]policy.Injection, today map[breaker.Workload]*observed, now time.Time, complete bool) (gone []breaker.Workload) {
	since := map[breaker.Workload]time.Time{}
	for _, e := range state.Entries() {
		o, seen := today[e.Workload]
		_, labelled := namespaces[e.Namespace]
		switch {
		case complete && !labelled:
			gone = append(gone, e.Workload)
		case seen && o.Trial != e.Trial:
			begin, known := a.outdated[e.Workload]
			if !known {
				begin = now
			}
			if now.Sub(begin) >= forgetting {
				gone = append(gone, e.Workload)
				continue
			}
			since[e.Workload] = begin
		}
	}
	a.outdated = since
	return gone
}

// release evicts the pods that are stuck: they run nothing, and a pending pod
// is held by no budget.
func (a *auditor) release(ctx context.Context, pods []observed, fresh map[breaker.Workload]bool, now time.Time) error {
	var errs []error
	for i := range pods {
		o := &pods[i]
		if o.Kind == Stuck && o.controller != nil && (fresh[o.workload] || a.pace.due(o.workload, o.created, now, true)) {
			errs = append(errs, a.evict(ctx, o, now, true))
		}
	}
	return errors.Join(errs...)
}

// repair evicts missed and outdated pods, of each workload one, and only while
// all the others are ready. Those that waited longest come first: budgets that
// refuse some of them would otherwise use up the pace of all.
func (a *auditor) repair(ctx context.Context, pods []observed, now time.Time) error {
	chosen := map[breaker.Workload]*observed{}
	unsettled := map[breaker.Workload][]string{}
	for i := range pods {
		o := &pods[i]
		if o.leaving || !o.ready {
			unsettled[o.workload] = append(unsettled[o.workload], o.name)
		}
		mendable := (o.Kind == Missed || o.Kind == Outdated) && o.controller != nil
		if chosen[o.workload] == nil && mendable && now.Sub(o.since) >= a.Settle && a.pace.due(o.workload, o.created, now, false) {
			chosen[o.workload] = o
		}
	}
	candidates := slices.SortedFunc(maps.Values(chosen), func(x, y *observed) int {
		return cmp.Or(a.pace.attempts[x.workload].asked.Compare(a.pace.attempts[y.workload].asked), x.since.Compare(y.since), cmp.Compare(x.workload.Namespace, y.workload.Namespace), cmp.Compare(x.name, y.name))
	})
	var errs []error
	for _, o := range candidates {
		if slices.ContainsFunc(unsettled[o.workload], func(name string) bool { return name != o.name }) {
			continue
		}
		if !a.bucket.TryAccept() {
			break
		}
		errs = append(errs, a.evict(ctx, o, now, false))
	}
	return errors.Join(errs...)
}

// evict evicts a pod and tells so.
func (a *auditor) evict(ctx context.Context, o *observed, now time.Time, unchanged bool) error {
	result, err := a.cluster.evict(ctx, *o, unchanged)
	a.metrics.evictions.WithLabelValues(result).Inc()
	a.Logger.Info("eviction", "namespace", o.workload.Namespace, "workload", o.workload.String(), "pod", o.name, "finding", o.Kind, "result", result)
	a.pace.record(o.workload, o.created, now, result == resultEvicted)
	switch result {
	case resultEvicted:
		return a.teller.tell(ctx, o, corev1.EventTypeNormal, eventEvicted, fmt.Sprintf("evicted, because it was %s; its successor is admitted as the policy says today", o.Kind))
	case resultRefused:
		return a.refused(ctx, o)
	}
	return err
}

// refused tells once per pod and finding that an eviction has to wait.
func (a *auditor) refused(ctx context.Context, o *observed) error {
	const text = "its eviction is refused for now, by a PodDisruptionBudget or because the API server is busy; it is tried again"
	object, _ := about(o)
	r := remark{object.UID, eventRefused, text}
	if a.teller.said[r] {
		return nil
	}
	if err := a.teller.tell(ctx, o, corev1.EventTypeWarning, eventRefused, text); err != nil {
		return err
	}
	a.teller.said[r] = true
	return nil
}
