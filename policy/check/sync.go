package check

import (
	"fmt"
	"time"
)

// SyncSeen is what is known of sync, which keeps the AWS side.
type SyncSeen struct {
	// Workload is what runs it, such as deployment/ampbridge-sync; empty: nothing in
	// the cluster does.
	Workload string
	// Scheduled is set where the workload is a CronJob; nil: it is a Deployment.
	Scheduled *ScheduleSeen
	// Lease is the one by which its replicas choose a leader; nil: there is none.
	Lease *LeaseSeen
	// Leader are the metrics of the replica that leads, and Problem is why they
	// could not be read.
	Leader  Metrics
	Problem string
}

// LeaseSeen is a Lease.
type LeaseSeen struct {
	// Holder is the replica that leads; empty: it was given back.
	Holder string
	// Renewed is when, by the leader's clock; Lasts is for how long.
	Renewed time.Time
	Lasts   time.Duration
	// Moved is true where it was renewed while doctor watched, whatever the clocks say.
	Moved bool
}

// held reports whether a leader lives.
func (l *LeaseSeen) held(now time.Time) bool {
	return l != nil && l.Holder != "" && (l.Moved || now.Sub(l.Renewed).Abs() <= l.Lasts)
}

// ScheduleSeen is a CronJob.
type ScheduleSeen struct {
	Suspended bool
	// Started is when its last run began, Succeeded when the last run that succeeded
	// ended; zero: there was none.
	Started, Succeeded time.Time
}

// syncPatience is how long a first pass or a run of a CronJob may take.
const syncPatience = 5 * time.Minute

// Sync judges it. Every interval it compares all of AWS with the policy. logs is
// the fix that shows its log.
func Sync(seen SyncSeen, interval time.Duration, now time.Time, logs Fix) Finding {
	switch {
	case seen.Scheduled != nil:
		return scheduled(seen.Workload, *seen.Scheduled, now, logs)
	case seen.Workload == "" && !seen.Lease.held(now):
		return Warned(SyncLeads, About{}, NewFix("let the chart run sync (sync.enabled), or run ampbridge sync --once whenever policy or service accounts change"),
			"nothing in the cluster runs sync: the AWS side follows neither the policy nor new service accounts by itself")
	case seen.Lease == nil:
		return Failed(SyncLeads, About{}, logs, "no replica of %s has ever led: there is no Lease", seen.Workload)
	case !seen.Lease.held(now) && seen.Lease.Holder == "":
		return Failed(SyncLeads, About{}, logs, "no replica of %s leads: the last leader gave the Lease back %s ago", seen.Workload, Span(now.Sub(seen.Lease.Renewed)))
	case !seen.Lease.held(now):
		return Failed(SyncLeads, About{}, logs, "no replica of %s leads: %s renewed the Lease last, %s ago", seen.Workload, seen.Lease.Holder, Span(max(0, now.Sub(seen.Lease.Renewed))))
	case seen.Problem != "":
		return Skipped(SyncLeads, About{}, "%s leads; whether its passes succeed is not known: %s", seen.Lease.Holder, seen.Problem)
	}
	return leader(seen.Lease.Holder, seen.Leader, interval, now, logs)
}

// leader judges the replica that leads by its metrics.
func leader(holder string, m Metrics, interval time.Duration, now time.Time, logs Fix) Finding {
	started, _ := m.of("process_start_time_seconds", "", "")
	success, known := m.of("ampbridge_sync_last_success_timestamp_seconds", "", "")
	loaded, _ := m.of("ampbridge_policy_last_load_success", "", "")
	refusals, _ := m.of("ampbridge_sync_refusals", "", "")
	ago := now.Sub(unix(success))
	switch {
	case !known:
		return Skipped(SyncLeads, About{}, "%s leads; whether its passes succeed is not known: it has no metric ampbridge_sync_last_success_timestamp_seconds", holder)
	case loaded == 0:
		return Failed(SyncLeads, About{}, logs, "%s leads, and refuses the newest version of the policy", holder)
	case refusals > 0:
		return Failed(SyncLeads, About{}, logs, "%s leads, and its last pass refused %s that the policy asks for", holder, count(int(refusals), "thing"))
	case success == 0 && now.Sub(unix(started)) < syncPatience:
		return Skipped(SyncLeads, About{}, "%s leads, and its first pass is not over: ask again in a minute", holder)
	case success == 0:
		return Failed(SyncLeads, About{}, logs, "%s leads, and none of its passes has succeeded in %s", holder, Span(now.Sub(unix(started))))
	case ago > 2*interval+syncPatience:
		return Failed(SyncLeads, About{}, logs, "%s leads, and its last pass that succeeded ended %s ago: there should be one every %s", holder, Span(ago), Span(interval))
	}
	return Passed(SyncLeads, About{}, "%s leads, and its last pass succeeded %s ago", holder, Span(max(0, ago)))
}

// scheduled judges a CronJob.
func scheduled(name string, s ScheduleSeen, now time.Time, logs Fix) Finding {
	last := "no run ever has"
	if !s.Succeeded.IsZero() {
		last = fmt.Sprintf("the last that did ended %s ago", Span(now.Sub(s.Succeeded)))
	}
	switch {
	case s.Suspended:
		return Failed(SyncLeads, About{}, NewFix("let it run again: spec.suspend: false"), "%s is suspended; %s", name, last)
	case s.Started.IsZero():
		return Skipped(SyncLeads, About{}, "%s has not run yet", name)
	case !s.Succeeded.Before(s.Started):
		return Passed(SyncLeads, About{}, "%s: its last run succeeded %s ago", name, Span(max(0, now.Sub(s.Succeeded))))
	case now.Sub(s.Started) > syncPatience:
		return Failed(SyncLeads, About{}, logs, "%s: the run that began %s ago has not succeeded; %s", name, Span(now.Sub(s.Started)), last)
	case s.Succeeded.IsZero():
		return Skipped(SyncLeads, About{}, "%s: its first run is not over", name)
	}
	return Passed(SyncLeads, About{}, "%s: a run is at work; the last that succeeded ended %s ago", name, Span(now.Sub(s.Succeeded)))
}

// unix is a time as metrics write it.
func unix(s float64) time.Time { return time.UnixMilli(int64(s * 1000)) }
