package doctor

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// stale returns the finding about a Prometheus that sent its last sample 11 minutes ago and has
// nothing to send.
func stale(t *testing.T, now time.Time) check.Finding {
	t.Helper()
	last := now.Add(-11 * time.Minute).Unix()
	page := fmt.Sprintf(`prometheus_remote_storage_highest_timestamp_in_seconds %d
prometheus_remote_storage_samples_total{remote_name="a"} 500
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{remote_name="a"} %d
`, last, last)
	m, err := parseMetrics(page)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := check.FlowState(m, m, check.FlowWindow, []policy.Block{{Name: "a"}}, now)
	return f.For(check.Flow, check.About{})
}

// The exit status is never 0 if samples do not flow, whatever --require is.
func TestExitError(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	passed := check.Passed(check.Policy, check.About{}, "")
	skip := func(id check.ID) check.Finding { return check.Skipped(id, check.About{}, "away") }
	dead := check.Sync(
		check.SyncState{Lease: &check.LeaseState{Holder: "sync-1", Renewed: now.Add(-time.Hour)}},
		time.Minute,
		now,
		check.Fix{},
	)
	const failed, unchecked, well = "failed", "unchecked", "well"
	for _, c := range []struct {
		name     string
		findings []check.Finding
		want     map[check.Scope]string
	}{
		{"all well", []check.Finding{passed}, map[check.Scope]string{"": well, "all": well, "cluster": well, "aws": well}},
		{"nothing flowing", []check.Finding{passed, stale(t, now)},
			map[check.Scope]string{"": failed, "all": failed, "cluster": failed, "aws": failed}},
		{"sync dead", []check.Finding{passed, dead}, map[check.Scope]string{"": failed, "all": failed, "cluster": failed,
			"aws": failed}},
		{"cluster away", []check.Finding{passed, skip(check.Kubernetes), skip(check.Session)},
			map[check.Scope]string{"": unchecked, "all": failed, "cluster": failed, "aws": well}},
		{"AWS away", []check.Finding{passed, skip(check.Account)},
			map[check.Scope]string{"": unchecked, "all": failed, "cluster": well, "aws": failed}},
		{"both away", []check.Finding{passed, skip(check.Kubernetes), skip(check.Account)},
			map[check.Scope]string{"": unchecked, "all": failed, "cluster": failed, "aws": failed}},
		{"no pod runs", []check.Finding{passed, skip(check.Flow)},
			map[check.Scope]string{"": unchecked, "all": failed, "cluster": failed, "aws": well}},
	} {
		var r check.Runner
		r.Add(c.findings...)
		for scope, want := range c.want {
			r.Head.Require = scope
			err := exitError(r.Report())
			got := failed
			if incomplete := (*UncheckedError)(nil); errors.As(err, &incomplete) {
				got = unchecked
			} else if err == nil {
				got = well
			}
			if got != want {
				t.Errorf("%s, --require %q: %s (%v), want %s", c.name, scope, got, err, want)
			}
			if missing := r.Report().Missing(); scope != "" && len(missing) > 0 &&
				!strings.Contains(err.Error(), "not checked: "+string(missing[0])) {
				t.Errorf("%s, --require %q: %v", c.name, scope, err)
			}
		}
	}
}
