// Package safety_test plays what AWS can do to a Prometheus, and shows that it
// never notices: STS refused, denying, hanging or broken, at the start and
// later, with reloads all the time. The last test does the same to a Prometheus
// that was set up by hand, so that everyone sees why the sidecar exists.
package safety_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
)

func TestMain(m *testing.M) { kubelet.Main(m) }

// faults are what STS can do. Each call starts one, and returns what ends it.
var faults = []struct {
	name  string
	start func(*env.Env) (stop func())
}{
	{"refused", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.Refuse).Stop }},
	{"denying", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.Deny).Stop }},
	{"hanging", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.Hang).Stop }},
	{"5xx", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.ServerError).Stop }},
}

// scraped returns how many samples of its own `up` Prometheus took since a time.
func scraped(t *testing.T, p *env.Prometheus, since time.Time) int {
	t.Helper()
	promql := fmt.Sprintf(`sum(count_over_time(up{job=%q}[%ds]))`, p.Object.Name, int(time.Since(since).Seconds()))
	v, _ := env.Value(t.Context(), p.Object, promql)
	return int(v)
}

// samplesLost returns how many samples Prometheus gave up on, towards the workspace.
func samplesLost(t *testing.T, p *env.Prometheus) float64 {
	t.Helper()
	var sum float64
	for _, metric := range []string{"failed", "dropped"} {
		v, _ := env.Metric(
			t.Context(),
			p.Object,
			fmt.Sprintf(`prometheus_remote_storage_samples_%s_total{remote_name="ampbridge-central"`, metric),
		)
		sum += v
	}
	return sum
}

// sink is a remote_write receiver of the user's own.
func sink(t *testing.T) (url string, received *atomic.Int64) {
	received = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		received.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}
