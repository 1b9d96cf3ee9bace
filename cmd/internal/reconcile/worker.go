package reconcile

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// worker is the leader's loop. It keeps what the last pass depended on, to know whether another
// pass is needed. Each pass reads AWS.
type worker struct {
	*controller
	watch      *watch
	events     *events
	reconciler *reconciler

	// The input of the last pass:
	lastPolicy *policy.Policy
	accounts   []plan.ServiceAccount // those with a grant
	inSync     bool
	backoff    backoff

	// askers are the service accounts that ask for injection without a grant, as
	// they were at their last events.
	askers []plan.ServiceAccount
	// due is when the next regular pass starts.
	due time.Time
	// caused is true if a change in the cluster caused the current pass.
	caused bool
	bucket bucket
	// asking limits the events of askers, as bucket limits passes.
	asking    bucket
	throttled throttledAccounts

	// planned is the plan of the current pass, and made the number of its changes that were
	// made; nil if there is no plan yet.
	planned *plan.Plan
	made    int

	// untilOrphans counts down to the next pass that looks for orphans.
	untilOrphans int
}

// pass brings AWS in sync once. It reports failures in the log and the metrics, and
// the next pass tries again.
func (w *worker) pass(ctx context.Context) {
	p := w.policy.Current()
	if p == nil {
		return // readiness and the log have the reason; a new version wakes the loop
	}
	w.planned, w.made = nil, 0
	if p != w.lastPolicy {
		old := w.reconciler
		w.reconciler, w.untilOrphans = w.options.reconciler(w.cluster, p), 0
		w.reconciler.iam.OnCall, w.reconciler.iam.Frugal = w.metrics.called, true
		if old != nil {
			w.reconciler.iam.Inherit(old.iam)
		}
		// Even after a change of the policy, throttled accounts are not called.
		w.throttled.longest = time.Duration(p.Trust.Interval)
		w.reconciler.throttled = &w.throttled
	}
	accounts, err := w.watch.serviceAccounts()
	if err != nil {
		w.finish(ctx, p, nil, false, []line{{slog.LevelError, err.Error()}})
		return
	}
	var now []plan.ServiceAccount
	now, w.askers = relevant(p, accounts)
	issuer, err := w.cluster.Issuer(ctx, p.Cluster.Issuer)
	if err != nil {
		w.finish(ctx, p, now, false, []line{{slog.LevelError, err.Error()}})
		return
	}
	planned, err := w.reconciler.prepare(ctx, snapshot{policy: p, issuer: issuer, accounts: accounts, orphans: w.untilOrphans == 0})
	if err != nil {
		w.finish(ctx, p, now, false, []line{{slog.LevelError, err.Error()}})
		return
	}
	w.metrics.planned(p, planned)
	w.planned = &planned
	pruned := slices.ContainsFunc(planned.SubjectStatuses, func(s plan.SubjectStatus) bool { return s.State == plan.Pruned })
	if w.inSync && p == w.lastPolicy && same(now, w.accounts) && !pruned {
		w.metrics.drift.Add(float64(len(planned.Changes)))
	}
	made, failures := w.reconciler.apply(ctx, planned)
	w.made = len(made)
	inSync := len(planned.Refusals)+len(failures) == 0
	w.metrics.applied(made, failures, inSync, w.reconciler.now())
	w.events.record(planned.SubjectStatuses, failures)
	for _, c := range made {
		w.logger.Info("changed", "call", c.Call, "resource", c.Resource.String(), "reason", c.Reason)
	}
	switch {
	case w.untilOrphans > 0 && w.caused:
		// Only regular passes count down.
	case w.untilOrphans > 0:
		w.untilOrphans--
	case inSync:
		w.untilOrphans = orphansEvery - 1
	}
	w.finish(ctx, p, now, inSync, linesOf(planned, failures))
}

// finish ends a pass.
func (w *worker) finish(ctx context.Context, p *policy.Policy, accounts []plan.ServiceAccount, inSync bool, lines []line) {
	w.lastPolicy, w.accounts, w.inSync = p, accounts, inSync
	now := w.reconciler.now()
	interval := time.Duration(p.Trust.Interval)
	w.throttled.finish(now)
	w.backoff.record(inSync, w.caused, interval)
	switch next := time.Now().Add(w.backoff.pause(interval)); {
	case !w.caused || w.due.IsZero():
		w.due = next
	case !inSync && next.Before(w.due):
		w.due = next
	}
	if first := w.throttled.next(); !first.IsZero() {
		if next := time.Now().Add(first.Sub(now)); next.Before(w.due) {
			w.due = next
		}
	}
	if ctx.Err() == nil {
		w.log.write(lines)
		w.board.setPass(passSeen{at: time.Now(), next: w.due, policy: p, plan: w.planned, made: w.made, inSync: inSync, lines: lines})
	}
}

// wait returns when the next pass is due: after the interval, sooner after a pass
// that left something undone, and soon after a relevant change. The admin changes the policy, so
// such a change does not wait. Tenants change the cluster, so the bucket limits those changes.
// Service accounts without a grant cause events and no pass.
func (w *worker) wait(ctx context.Context) {
	pause := time.Hour
	if w.lastPolicy != nil {
		pause = time.Until(w.due)
	}
	regular := time.NewTimer(pause)
	defer regular.Stop()
	again := time.NewTimer(0) // for changes that came while the bucket was empty
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-regular.C:
			w.caused = false
			return
		case <-w.wake:
			sleep(ctx, debounce)
			select {
			case <-w.wake:
			default:
			}
		case <-again.C:
		}
		policyChanged, granted, askers := w.changed()
		var wait time.Duration
		ok := false
		switch {
		case policyChanged:
			w.caused = false
			return
		case granted:
			if wait, ok = w.bucket.take(time.Now()); ok {
				w.caused = true
				return
			}
		case askers != nil:
			if wait, ok = w.asking.take(time.Now()); ok {
				w.askers = *askers
				w.events.recordAskers(notGranted(w.lastPolicy, w.askers))
				continue
			}
		default:
			continue
		}
		again.Reset(wait)
	}
}

// changed returns what has changed since the last pass: the policy, and service accounts with a
// grant. askers are the service accounts that ask without a grant; nil if they have not
// changed.
func (w *worker) changed() (policyChanged, granted bool, askers *[]plan.ServiceAccount) {
	p := w.policy.Current()
	if p != w.lastPolicy || p == nil {
		return p != nil, false, nil
	}
	accounts, err := w.watch.serviceAccounts()
	if err != nil {
		return false, true, nil // the pass logs the error
	}
	now, asking := relevant(p, accounts)
	if !same(asking, w.askers) {
		askers = &asking
	}
	return false, !same(now, w.accounts), askers
}

// notGranted returns the statuses of the askers, without a call to AWS.
func notGranted(p *policy.Policy, askers []plan.ServiceAccount) []plan.SubjectStatus {
	unmanaged := *p
	unmanaged.Trust.Manage = policy.ManageNone
	return plan.Compute(plan.Input{Policy: &unmanaged, ServiceAccounts: askers}).SubjectStatuses
}

// line is one log line about a pass.
type line struct {
	level slog.Level
	text  string
}

func linesOf(p plan.Plan, failures []Failure) []line {
	var list []line
	for _, f := range p.Refusals {
		list = append(list, line{slog.LevelError, "refused: " + f.About + ": " + f.Message})
	}
	for _, f := range failures {
		list = append(list, line{slog.LevelError, "failed: " + f.Resource.String() + ": " + f.Error})
	}
	for _, f := range p.Drift {
		list = append(list, line{slog.LevelWarn, "drift: " + f.About + ": " + f.Message})
	}
	for _, f := range p.Notes {
		list = append(list, line{slog.LevelInfo, f.About + ": " + f.Message})
	}
	return list
}

// dedupLog logs each line once, even if several passes repeat it.
type dedupLog struct {
	logger *slog.Logger
	logged map[line]bool
}

// shorten limits the length of a log line, whatever names are in it.
func shorten(s string) string {
	const most = 2000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func (d *dedupLog) write(lines []line) {
	now, failing, wasFailing := map[line]bool{}, false, false
	for l := range d.logged {
		wasFailing = wasFailing || l.level == slog.LevelError
	}
	for _, l := range lines {
		if !d.logged[l] && !now[l] {
			d.logger.Log(context.Background(), l.level, shorten(l.text))
		}
		now[l] = true
		failing = failing || l.level == slog.LevelError
	}
	if (wasFailing || d.logged == nil) && !failing {
		d.logger.Info("in sync")
	}
	d.logged = now
}
