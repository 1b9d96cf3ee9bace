package awstest_test

import (
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/awstest"
)

// TestKept: without a Prometheus, samples of the named metric are kept as they come, with what
// became of each, and a series only grows.
func TestKept(t *testing.T) {
	f := newFixtureWith(t, awstest.Options{Keep: []string{"answer"}})
	creds := f.cloud.Account(accountID).AdminCredentials()
	now := time.Now().Truncate(time.Millisecond)
	write := func(metric string, value float64, at time.Time) int {
		body := writeRequest(metric, value, at)
		status, _, _ := f.send(f.request("POST", f.writePath(), body, creds, nil))
		return status
	}
	for _, c := range []struct {
		metric string
		value  float64
		at     time.Time
		status int
	}{
		{"answer", 1, now, 204},
		{"other", 1, now, 204},
		{"answer", 1, now, 204}, // the same again
		{"answer", 2, now, 400},
		{"answer", 3, now.Add(-time.Second), 400},
		{"answer", 4, now.Add(time.Second), 204},
	} {
		if status := write(c.metric, c.value, c.at); status != c.status {
			t.Errorf("%s %v at %v: %d, want %d", c.metric, c.value, c.at, status, c.status)
		}
	}
	fault := f.cloud.Fail("aps:RemoteWrite", awstest.Deny)
	write("answer", 5, now.Add(2*time.Second))
	fault.Stop()
	kept := f.cloud.Kept(f.workspace.ID, "answer")
	want := []awstest.Kept{
		{Stored: true, Status: 204}, {Stored: true, Status: 204}, {Status: 400, Code: "ValidationException"},
		{Status: 400, Code: "ValidationException"}, {Stored: true, Status: 204}, {Status: 403, Code: "AccessDeniedException"},
	}
	if len(kept) != len(want) {
		t.Fatalf("kept = %+v", kept)
	}
	for i, k := range kept {
		value := []float64{1, 1, 2, 3, 4, 5}[i]
		if k.Stored != want[i].Stored || k.Status != want[i].Status || k.Code != want[i].Code || k.Value != value {
			t.Errorf("kept[%d] = %+v, want value %v of %+v", i, k, value, want[i])
		}
	}
	if !kept[0].Time.Equal(now) {
		t.Errorf("the first is of %v, want %v", kept[0].Time, now)
	}
	if len(f.cloud.Kept(f.workspace.ID, "other")) != 0 {
		t.Error("a metric that was not named is kept")
	}
}
