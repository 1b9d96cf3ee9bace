package sidecar

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	relayURL = "http://127.0.0.1:41234/ampbridge-central/workspaces/ws-1/api/v1/remote_write"
	ampURL   = "https://aps.example/workspaces/ws-1/api/v1/remote_write"
)

// page is a part of a Prometheus's metrics, with an entry of remote_write of its user.
const page = `# HELP prometheus_remote_storage_samples_total Total number of samples sent to remote storage.
# TYPE prometheus_remote_storage_samples_total counter
prometheus_remote_storage_samples_total{remote_name="ampbridge-central",url="` + ampURL + `"} 10
prometheus_remote_storage_samples_total{remote_name="own",url="https://user:password@example.com/write"} 11
prometheus_remote_storage_samples_total{remote_name="5f1b",url="` + relayURL + `"} 12
prometheus_remote_storage_succeeded_samples_total{queue="0:` + relayURL + `"} 13
prometheus_remote_storage_succeeded_samples_total{queue="1:https://user:password@example.com/write"} 14
prometheus_remote_storage_highest_timestamp_in_seconds 1.7e+09
process_start_time_seconds 1.6e+09
go_memstats_last_gc_time_seconds 1.7e+09
process_start_time_seconds_other 1
go_goroutines 40
`

const wantQueues = `prometheus_remote_storage_samples_total{remote_name="ampbridge-central",url="` + ampURL + `"} 10
prometheus_remote_storage_samples_total{remote_name="5f1b",url="` + relayURL + `"} 12
prometheus_remote_storage_succeeded_samples_total{queue="0:` + relayURL + `"} 13
prometheus_remote_storage_highest_timestamp_in_seconds 1.7e+09
process_start_time_seconds 1.6e+09
go_memstats_last_gc_time_seconds 1.7e+09
`

// The sidecar reads a Prometheus that listens on a loopback address, with or without TLS,
// and shows nothing of the user's own entries.
func TestServeQueues(t *testing.T) {
	block := policy.Block{Name: "ampbridge-central", URL: ampURL}
	for _, c := range []struct {
		name   string
		start  func(http.Handler) *httptest.Server
		tls    bool
		answer http.HandlerFunc
		status int
		want   string
	}{
		{"http", httptest.NewServer, false, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) }, 200, wantQueues},
		{"https", httptest.NewTLSServer, true, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(page)) }, 200, wantQueues},
		{"a password", httptest.NewServer, false, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, 502,
			"401 Unauthorized"},
		{"too long", httptest.NewServer, false, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(strings.Repeat("prometheus_remote_storage_highest_timestamp_in_seconds 1.7e+09\n", maxKept/32)))
		}, 502, "are longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			prometheus := c.start(c.answer)
			defer prometheus.Close()
			s := &server{destinations: []*destination{{block: block}}}
			s.config.Prometheus = sidecarconfig.Prometheus{Address: prometheus.Listener.Addr().String(), TLS: c.tls}
			w := httptest.NewRecorder()
			s.serveQueues(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, sidecarconfig.QueuesPath, nil))
			if w.Code != c.status || c.status == 200 && w.Body.String() != c.want || !strings.Contains(w.Body.String(), c.want) {
				t.Errorf("%d\n%s", w.Code, w.Body)
			}
		})
	}
}

// One request at a time reads Prometheus, and none where its address is not known.
func TestServeQueuesRefuses(t *testing.T) {
	ask := func(s *server) int {
		w := httptest.NewRecorder()
		s.serveQueues(w, httptest.NewRequestWithContext(context.Background(), http.MethodGet, sidecarconfig.QueuesPath, nil))
		return w.Code
	}
	s := &server{}
	if status := ask(s); status != http.StatusNotFound {
		t.Errorf("no address: %d", status)
	}
	s.config.Prometheus.Address = testkit.FreeAddr(t)
	if status := ask(s); status != http.StatusBadGateway {
		t.Errorf("nothing listens: %d", status)
	}
	s.reading.Lock()
	if status := ask(s); status != http.StatusTooManyRequests {
		t.Errorf("at the same time: %d", status)
	}
}
