package doctor

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// One read is enough if it proves that samples arrive. Otherwise doctor reads again until a
// read proves it.
func TestFlow(t *testing.T) {
	read := func(sent, retried, pending int) string {
		return fmt.Sprintf(`prometheus_remote_storage_highest_timestamp_in_seconds 1000
prometheus_remote_storage_samples_total{remote_name="a"} 500
prometheus_remote_storage_samples_retried_total{remote_name="a"} %d
prometheus_remote_storage_samples_pending{remote_name="a"} %d
prometheus_remote_storage_queue_highest_sent_timestamp_seconds{remote_name="a"} %d
`, retried, pending, sent)
	}
	for _, c := range []struct {
		name  string
		reads []string
		state check.Status
	}{
		{"well", []string{read(999, 0, 20)}, check.Pass},
		{"retried, and then sent", []string{read(990, 100, 20), read(999, 100, 20)}, check.Pass},
		{"not to be read", []string{""}, check.Skip},
		{"not to be read the second time", []string{read(990, 100, 20), ""}, check.Skip},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := 0
			x := &runner{Options: Options{Now: func() time.Time { return time.Unix(1000, 0) }}}
			f := x.flow(t.Context(), []policy.Block{{Name: "a"}}, func() (string, error) {
				n++
				if n > len(c.reads) {
					t.Fatalf("%d reads, want %d", n, len(c.reads))
				}
				if c.reads[n-1] == "" {
					return "", errors.New("the pod is Pending")
				}
				return c.reads[n-1], nil
			}, func(problem string) check.Finding { return skipped("%s", problem) })
			if f.Status != c.state || n != len(c.reads) {
				t.Errorf("%s after %d reads: %s", f.Status, n, f.Message)
			}
		})
	}
}
