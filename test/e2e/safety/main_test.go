// Package safety_test tests that AWS faults do not affect a Prometheus: STS refuses, denies, hangs or fails,
// at the start and later, with reloads all the time. The last test does the same with a Prometheus that was
// configured by hand, and shows why the sidecar is needed.
package safety_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/barepod"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/tools"
)

func TestMain(m *testing.M) { kubelet.Main(m) }

// faults are faults of STS. Each function starts one, and returns a function that ends it.
var faults = []struct {
	name  string
	start func(*env.Env) (stop func())
}{
	{"refused", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.Refuse).Stop }},
	{"denying", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.Deny).Stop }},
	{"hanging", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.Hang).Stop }},
	{"5xx", func(e *env.Env) func() { return e.Cloud.Fail("sts:*", awstest.ServerError).Stop }},
}

// startSigning starts a pod whose Prometheus signs its writes itself. Its sessions last that long.
func startSigning(t *testing.T, life time.Duration) *barepod.Pod {
	t.Helper()
	site := barepod.New(t)
	site.SetSessionLife(life)
	p := site.Pod(t, newest(t, policy.DeliverySigV4))
	p.Start(t)
	if !p.Served("sigv4:") {
		t.Fatal("Prometheus does not sign")
	}
	return p
}

// newest returns the options of a pod with the newest Prometheus.
func newest(t *testing.T, delivery policy.Delivery) barepod.Options {
	t.Helper()
	return barepod.Options{Program: tools.Path(t, "prometheus"), Version: "3.15", Delivery: delivery}
}

// scraped returns how many samples of its own `up` Prometheus has scraped since a time.
func scraped(t *testing.T, p *env.Prometheus, since time.Time) int {
	t.Helper()
	promql := fmt.Sprintf(`sum(count_over_time(up{job=%q}[%ds]))`, p.Object.Name, int(time.Since(since).Seconds()))
	v, _ := env.Value(t.Context(), p.Object, promql)
	return int(v)
}

// samplesLost returns how many samples for the workspace Prometheus has dropped.
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

// sink is the user's own remote_write receiver.
func sink(t *testing.T) (url string, received *atomic.Int64) {
	received = &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		received.Add(1)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, received
}
