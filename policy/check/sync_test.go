package check

import (
	"testing"
	"time"
)

func TestSync(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	lease := func(age time.Duration) *LeaseState { return &LeaseState{"sync-1", ago(age), 15 * time.Second, false} }
	leader := func(success time.Duration, refusals, loaded float64, up time.Duration) Metrics {
		at := float64(ago(success).Unix())
		if success == 0 {
			at = 0
		}
		return Metrics{
			"ampbridge_sync_last_success_timestamp_seconds": series("", "", at),
			"ampbridge_sync_refusals":                       series("", "", refusals),
			"ampbridge_policy_last_load_success":            series("", "", loaded),
			"process_start_time_seconds":                    series("", "", float64(ago(up).Unix())),
		}
	}
	const deployment, cronJob = "deployment/ampbridge-sync", "cronjob/ampbridge-sync"
	well := leader(3*time.Minute, 0, 1, time.Hour)
	for _, c := range []struct {
		name    string
		seen    SyncState
		status  Status
		message string
	}{
		{"well", SyncState{Workload: deployment, Lease: lease(2 * time.Second), Leader: well}, Pass, "sync-1 leads, and its last pass " +
			"succeeded 3 minutes ago"},
		{"the leader's clock is ahead", SyncState{Workload: deployment, Lease: lease(-10 * time.Second), Leader: well}, Pass, "sync-1 leads"},
		{"the leader's clock is an hour behind", SyncState{Workload: deployment,
			Lease: &LeaseState{"sync-1", ago(time.Hour), 15 * time.Second, true}, Leader: well}, Pass, "sync-1 leads"},
		{"by hand, beside the cluster", SyncState{Lease: lease(2 * time.Second), Problem: "no such pod"}, Skip, "is not known: no such pod"},
		{"not installed", SyncState{}, Warn, "nothing in the cluster runs sync"},
		{"not installed any more", SyncState{Lease: lease(time.Hour)}, Fail, "nothing in the cluster runs sync any more"},
		// Argo CD never applies a Lease.
		{"no Lease", SyncState{Workload: deployment}, Fail, "no replica of deployment/ampbridge-sync ever led: there is no Lease"},
		{"never held", SyncState{Workload: deployment, Lease: &LeaseState{"", ago(time.Hour), time.Second, false}}, Fail,
			"released the Lease 60 minutes ago"},
		{"no leader for an hour", SyncState{Workload: deployment, Lease: lease(3 * time.Hour), Leader: well}, Fail, "sync-1 renewed " +
			"the Lease last, 3 hours ago"},
		{"the future, and it does not move", SyncState{Workload: deployment, Lease: lease(-time.Hour), Leader: well}, Fail, "no replica"},
		{"metrics not to be had", SyncState{Workload: deployment, Lease: lease(0), Problem: "forbidden"}, Skip, "not known: forbidden"},
		{"another program's metrics", SyncState{Workload: deployment, Lease: lease(0), Leader: Metrics{"up": series("", "", 1)}}, Skip,
			"it has no metric"},
		{"it refuses the policy", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(time.Minute, 0, 0, time.Hour)}, Fail,
			"refuses the newest version of the policy"},
		{"one refusal", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(time.Minute, 1, 1, time.Hour)}, Fail,
			"refused 1 change that the policy requires"},
		{"refusals, and never a success", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(0, 3, 1, time.Minute)}, Fail,
			"refused 3 changes"},
		{"just started", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(0, 0, 1, time.Minute)}, Skip,
			"its first pass is not finished"},
		{"never a success", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(0, 0, 1, time.Hour)}, Fail, "none of its " +
			"passes has succeeded in 60 minutes"},
		{"no success for long", SyncState{Workload: deployment, Lease: lease(0), Leader: leader(26*time.Minute, 0, 1, time.Hour)}, Fail,
			"ended 26 minutes ago: there should be one every 10 minutes"},
		{"a CronJob", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(4 * time.Minute),
			Succeeded: ago(3 * time.Minute)}}, Pass,
			"its last run succeeded 3 minutes ago"},
		{"a CronJob that is not run any more", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Started: ago(73 * time.Hour), Succeeded: ago(72 * time.Hour)}},
			Fail, "cronjob/ampbridge-sync has not been run for 3 days"},
		{"a CronJob once a day", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(24 * time.Hour),
			Succeeded: ago(23 * time.Hour)}}, Pass,
			"its last run succeeded 23 hours ago"},
		{"a CronJob at work", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Minute), Succeeded: ago(time.Hour)}}, Pass,
			"a run is in progress"},
		{"a CronJob that fails", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Hour),
			Succeeded: ago(3 * time.Hour)}}, Fail,
			"has not succeeded; the last successful run ended 3 hours ago"},
		{"a CronJob that has always failed", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Hour)}}, Fail,
			"no run ever succeeded"},
		{"a CronJob that is suspended", SyncState{Workload: cronJob, CronJob: &CronJobState{Suspended: true,
			Started: ago(time.Hour), Succeeded: ago(time.Hour)}}, Fail,
			"is suspended"},
		{"a CronJob that fails every five minutes", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Hourly: true, Started: ago(2 * time.Minute), Succeeded: ago(72 * time.Hour)}}, Fail,
			"the last successful run ended 3 days ago"},
		{"a daily CronJob that fails", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Started: ago(2 * time.Minute), Succeeded: ago(72 * time.Hour)}}, Fail,
			"the last successful run ended 3 days ago"},
		{"a daily CronJob that failed once", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Started: ago(2 * time.Minute), Succeeded: ago(47 * time.Hour)}}, Pass, "a run is in progress"},
		{"an hourly CronJob that is not run any more", SyncState{Workload: cronJob,
			CronJob: &CronJobState{Hourly: true, Started: ago(40 * time.Hour), Succeeded: ago(40 * time.Hour)}}, Fail,
			"has not been run for 40 hours"},
		{"a CronJob before its first run", SyncState{Workload: cronJob, CronJob: &CronJobState{}}, Skip, "has not run yet"},
		{"a CronJob in its first run", SyncState{Workload: cronJob, CronJob: &CronJobState{Started: ago(time.Minute)}}, Skip,
			"first run is not finished"},
	} {
		t.Run(c.name, func(t *testing.T) {
			judged(t, Sync(c.seen, 10*time.Minute, now, NewFix("see its log")), c.status, c.message)
		})
	}
}

func TestHourly(t *testing.T) {
	for schedule, want := range map[string]bool{
		"*/5 * * * *": true, "0 * * * *": true, "@hourly": true, "7,37  * * * *": true,
		"0 3 * * *": false, "0 * * * 1": false, "@daily": false, "0 */2 * * *": false, "": false,
	} {
		if got := Hourly(schedule); got != want {
			t.Errorf("%q: %v", schedule, got)
		}
	}
}
