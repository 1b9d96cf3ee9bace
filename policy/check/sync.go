package check

import (
	"fmt"
	"strings"
	"time"
)

// SyncState has what doctor observed of sync.
type SyncState struct {
	// Workload is the object that runs sync, such as deployment/ampbridge-sync; empty:
	// none in the cluster.
	Workload string
	// CronJob is set if the workload is a CronJob; nil: it is a Deployment.
	CronJob *CronJobState
	// Lease names the leader of its replicas; nil: there is no Lease.
	Lease *LeaseState
	// Leader holds the metrics of the leading replica. Problem is why they could not
	// be read.
	Leader  Metrics
	Problem string
}

// LeaseState is a Lease.
type LeaseState struct {
	// Holder is the leading replica; empty: it released the Lease.
	Holder string
	// Renewed is the time of the last renewal, by the leader's clock.
	Renewed time.Time
	// Lasts is how long a renewal is valid.
	Lasts time.Duration
	// Moved is true if doctor observed a renewal, whatever the clocks show.
	Moved bool
}

// held reports whether a leader holds the Lease.
func (l *LeaseState) held(now time.Time) bool {
	return l != nil && l.Holder != "" && (l.Moved || now.Sub(l.Renewed).Abs() <= l.Lasts)
}

// CronJobState is a CronJob.
type CronJobState struct {
	Suspended bool
	// Started is the start of the last run, and Succeeded the end of the last successful run;
	// zero: there was none.
	Started, Succeeded time.Time
	// Hourly is true if its schedule has a run in every hour.
	Hourly bool
}

// Hourly reports whether a schedule has a run in every hour of every day.
func Hourly(schedule string) bool {
	fields := strings.Fields(schedule)
	return schedule == "@hourly" || len(fields) == 5 && strings.Join(fields[1:], " ") == "* * * *"
}

// syncGrace is how long a first pass or a run of a CronJob may take.
const syncGrace = 5 * time.Minute

// Sync judges sync. interval is trust.interval of the policy: sync compares AWS with the policy
// once per interval. logs is the fix that shows its log.
func Sync(s SyncState, interval time.Duration, now time.Time, logs Fix) Finding {
	switch {
	case s.CronJob != nil:
		return scheduled(s.Workload, *s.CronJob, interval, now, logs)
	case s.Workload == "" && s.Lease != nil && !s.Lease.held(now):
		return Failed(
			SyncLeads,
			About{},
			NewFix("let the chart run sync (sync.enabled); or, if you run ampbridge sync --once yourself from now on, delete the Lease"),
			"nothing in the cluster runs sync any more: the Lease was renewed last %s ago",
			Span(max(0, now.Sub(s.Lease.Renewed))),
		)
	case s.Workload == "" && s.Lease == nil:
		return Warned(
			SyncLeads,
			About{},
			NewFix("let the chart run sync (sync.enabled), or run ampbridge sync --once whenever policy or service accounts change"),
			"nothing in the cluster runs sync: the AWS side follows neither the policy nor new service accounts",
		)
	case s.Lease == nil:
		return Failed(SyncLeads, About{}, logs, "no replica of %s ever led: there is no Lease", s.Workload)
	case !s.Lease.held(now) && s.Lease.Holder == "":
		return Failed(
			SyncLeads,
			About{},
			logs,
			"no replica of %s leads: the last leader released the Lease %s ago",
			s.Workload,
			Span(now.Sub(s.Lease.Renewed)),
		)
	case !s.Lease.held(now):
		return Failed(
			SyncLeads,
			About{},
			logs,
			"no replica of %s leads: %s renewed the Lease last, %s ago",
			s.Workload,
			s.Lease.Holder,
			Span(max(0, now.Sub(s.Lease.Renewed))),
		)
	case s.Problem != "":
		return Skipped(SyncLeads, About{}, "%s leads; whether its passes succeed is not known: %s", s.Lease.Holder, s.Problem)
	}
	return leader(s.Lease.Holder, s.Leader, interval, now, logs)
}

// leader judges the leading replica by its metrics.
func leader(holder string, m Metrics, interval time.Duration, now time.Time, logs Fix) Finding {
	started, _ := m.of("process_start_time_seconds")
	success, known := m.of("ampbridge_sync_last_success_timestamp_seconds")
	loaded, _ := m.of("ampbridge_policy_last_load_success")
	refusals, _ := m.of("ampbridge_sync_refusals")
	ago := now.Sub(unix(success))
	switch {
	case !known:
		return Skipped(
			SyncLeads,
			About{},
			"%s leads; whether its passes succeed is not known: it has no metric ampbridge_sync_last_success_timestamp_seconds",
			holder,
		)
	case loaded == 0:
		return Failed(SyncLeads, About{}, logs, "%s leads, and refuses the newest version of the policy", holder)
	case refusals > 0:
		return Failed(
			SyncLeads,
			About{},
			logs,
			"%s leads, and its last pass refused %s that the policy requires",
			holder,
			count(int(refusals), "change"),
		)
	case success == 0 && now.Sub(unix(started)) < syncGrace:
		return Skipped(SyncLeads, About{}, "%s leads, and its first pass is not finished: run doctor again in a minute", holder)
	case success == 0:
		return Failed(
			SyncLeads,
			About{},
			logs,
			"%s leads, and none of its passes has succeeded in %s",
			holder,
			Span(now.Sub(unix(started))),
		)
	case ago > 2*interval+syncGrace:
		return Failed(
			SyncLeads,
			About{},
			logs,
			"%s leads, and its last successful pass ended %s ago: there should be one every %s",
			holder,
			Span(ago),
			Span(interval),
		)
	}
	return Passed(SyncLeads, About{}, "%s leads, and its last pass succeeded %s ago", holder, Span(max(0, ago)))
}

// rareRuns is the longest pause between two runs of a CronJob that does not run every hour.
const rareRuns = 24 * time.Hour

// scheduled judges a CronJob.
func scheduled(name string, s CronJobState, interval time.Duration, now time.Time, logs Fix) Finding {
	last := "no run ever succeeded"
	if !s.Succeeded.IsZero() {
		last = fmt.Sprintf("the last successful run ended %s ago", Span(now.Sub(s.Succeeded)))
	}
	pause := max(interval, rareRuns)
	if s.Hourly {
		pause = max(interval, time.Hour)
	}
	tooOld := func(t time.Time) bool { return now.Sub(t) > 2*pause+syncGrace }
	switch {
	case s.Suspended:
		return Failed(SyncLeads, About{}, NewFix("resume it: spec.suspend: false"), "%s is suspended; %s", name, last)
	case s.Started.IsZero():
		return Skipped(SyncLeads, About{}, "%s has not run yet", name)
	case !s.Succeeded.Before(s.Started) && tooOld(s.Started):
		return Failed(SyncLeads, About{}, NewFix("see the events of the CronJob, and kube-controller-manager's log, for why it is not run",
			Command{"kubectl", "get", "cronjobs,jobs,pods", "--all-namespaces", "--selector", "app.kubernetes.io/component=sync"}),
			"%s has not been run for %s; %s", name, Span(now.Sub(s.Started)), last)
	case !s.Succeeded.Before(s.Started):
		return Passed(SyncLeads, About{}, "%s: its last run succeeded %s ago", name, Span(max(0, now.Sub(s.Succeeded))))
	case now.Sub(s.Started) > syncGrace:
		return Failed(SyncLeads, About{}, logs, "%s: the run that began %s ago has not succeeded; %s", name, Span(now.Sub(s.Started)), last)
	case s.Succeeded.IsZero():
		return Skipped(SyncLeads, About{}, "%s: its first run is not finished", name)
	case tooOld(s.Succeeded):
		return Failed(SyncLeads, About{}, logs, "%s: a run began %s ago, but %s", name, Span(now.Sub(s.Started)), last)
	}
	return Passed(SyncLeads, About{}, "%s: a run is in progress; the last successful run ended %s ago", name, Span(now.Sub(s.Succeeded)))
}

// unix returns the time of a metric in seconds.
func unix(s float64) time.Time { return time.UnixMilli(int64(s * 1000)) }
