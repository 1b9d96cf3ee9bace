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

// worker is the leader's loop. From pass to pass it keeps what the last one depended
// on, to know whether another is needed. Each pass reads AWS.
type worker struct {
	*controller
	watch      *watch
	events     *events
	reconciler *reconciler

	// Of the last pass:
	lastPolicy *policy.Policy
	accounts   []plan.ServiceAccount // the granted ones
	inSync     bool
	backoff    backoff

	// askers are the service accounts without a grant that ask for injection, as
	// they were at their last events.
	askers []plan.ServiceAccount
	// due is when the next pass comes by itself.
	due time.Time
	// caused: a change in the cluster is why the pass is made.
	caused bool
	bucket bucket
	// asking paces the events of askers, as bucket does passes.
	asking    bucket
	throttled throttledAccounts

	// planned is the plan of the pass that is made, and made how many of its changes were
	// made; nil: there is no plan yet.
	planned *plan.Plan
	made    int

	// untilOrphans counts down to the next pass that looks for orphans.
	untilOrphans int
}

// pass brings AWS in sync once. What goes wrong is in the log and in the metrics, and
// the next pass tries it again.
func (w *worker) pass(ctx context.Context) {
	p := w.policy.Current()
	if p == nil {
		return // readiness and the log have the reason; the next version wakes the loop
	}
	w.planned, w.made = nil, 0
	if p != w.lastPolicy {
		old := w.reconciler
		w.reconciler, w.untilOrphans = w.options.reconciler(w.cluster, p), 0
		w.reconciler.iam.OnCall, w.reconciler.iam.Frugal = w.metrics.called, true
		if old != nil {
			w.reconciler.iam.Inherit(old.iam)
		}
		// A new policy, too, leaves throttled accounts alone.
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
		// It counts the passes that come by themselves.
	case w.untilOrphans > 0:
		w.untilOrphans--
	case inSync:
		w.untilOrphans = orphansEvery - 1
	}
	w.finish(ctx, p, now, inSync, linesOf(planned, failures))
}

// finish closes a pass.
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

// wait returns when the next pass is due: after the interval, sooner after one
// that left something undone, and soon after a change that matters. Changes of the
// policy are the admin's, and wait for nothing. Those in the cluster are the
// tenants': the bucket holds them back. Service accounts without a grant cause
// events, and no pass.
func (w *worker) wait(ctx context.Context) {
	pause := time.Hour
	if w.lastPolicy != nil {
		pause = time.Until(w.due)
	}
	regular := time.NewTimer(pause)
	defer regular.Stop()
	again := time.NewTimer(0) // for what changed while the bucket was empty
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

// changed returns what has changed since the last pass: whether the policy did, and
// whether service accounts with a grant did. askers are the service accounts without
// a grant that ask; nil: the same as before.
func (w *worker) changed() (policyChanged, granted bool, askers *[]plan.ServiceAccount) {
	p := w.policy.Current()
	if p != w.lastPolicy || p == nil {
		return p != nil, false, nil
	}
	accounts, err := w.watch.serviceAccounts()
	if err != nil {
		return false, true, nil // the pass logs it
	}
	now, asking := relevant(p, accounts)
	if !same(asking, w.askers) {
		askers = &asking
	}
	return false, !same(now, w.accounts), askers
}

// notGranted returns the statuses of the askers. It needs no call to AWS.
func notGranted(p *policy.Policy, askers []plan.ServiceAccount) []plan.SubjectStatus {
	unmanaged := *p
	unmanaged.Trust.Manage = policy.ManageNone
	return plan.Compute(plan.Input{Policy: &unmanaged, ServiceAccounts: askers}).SubjectStatuses
}

// line is a line of the log about a pass.
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

// dedupLog logs each line once, in however many passes it comes up again.
type dedupLog struct {
	logger *slog.Logger
	logged map[line]bool
}

// shorten keeps a line of the log readable, whatever names are in it.
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
