package sidecar_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// server stands for the pod's Prometheus, as far as the sidecar looks at it:
// its port, /-/ready and its build information. test/e2e has the real one.
type server struct {
	address string
	tls     bool
	version string // empty: it does not tell
	ready   atomic.Bool
	running *httptest.Server
}

func newServer(t *testing.T, version string) *server {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	s := &server{address: socket.Addr().String(), version: version}
	t.Cleanup(s.end)
	return s
}

// start opens the port.
func (s *server) start(t *testing.T) {
	t.Helper()
	socket, err := net.Listen("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics-of/-/ready", func(w http.ResponseWriter, _ *http.Request) {
		if !s.ready.Load() {
			http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("GET /metrics-of/api/v1/status/buildinfo", func(w http.ResponseWriter, _ *http.Request) {
		if s.version == "" {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"status":"success","data":{"version":%q,"revision":"0"}}`, s.version)
	})
	s.running = httptest.NewUnstartedServer(mux)
	_ = s.running.Listener.Close()
	s.running.Listener = socket
	if s.tls {
		s.running.StartTLS()
	} else {
		s.running.Start()
	}
}

// end closes the port and every connection, as the end of a process does.
func (s *server) end() {
	s.ready.Store(false)
	if s.running != nil {
		s.running.CloseClientConnections()
		s.running.Close()
		s.running = nil
	}
}

// startOnly makes p a pod that nothing reloads.
func (p *pod) startOnly(s *server) {
	p.config.Reload = sidecarconfig.StartOnly
	p.config.Prometheus = sidecarconfig.Prometheus{Address: s.address, Prefix: "/metrics-of", TLS: s.tls}
}

// TestStartOnly: the block is there while STS answers, and its profile makes
// the SDK ask by itself.
func TestStartOnly(t *testing.T) {
	t.Parallel()
	p, prometheus := newPod(t, 3600, "central"), newServer(t, "3.15.0")
	p.startOnly(prometheus)
	p.newer()
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	if n := strings.Count(p.log.String(), "configuration served"); n != 1 {
		t.Errorf("%d configurations were served, want the first to have the block", n)
	}
	if got := p.credentials(
		t,
	); !strings.Contains(got, "[profile ampbridge-central]\nrole_arn = ") ||
		strings.Contains(got, "aws_access_key_id") {
		t.Errorf("the config file:\n%s", got)
	}
	if d := p.status(t).Destinations[0]; d.Block {
		t.Error("the status says that Prometheus has the block before it has started")
	}
	prometheus.start(t)
	prometheus.ready.Store(true)
	p.eventually(t, "the status tells that Prometheus has the block", func() bool {
		s := p.status(t)
		return s.Prometheus.Version == "3.15" && s.StartOnly && s.Destinations[0].Block && s.Destinations[0].GapSince.IsZero()
	})
	if d := p.status(t).Destinations[0]; len(d.Omitted) != 2 || strings.Contains(p.served(), "sample_age_limit") {
		t.Errorf("the next start, of a version that nobody knows, gets newer fields: %+v", d)
	}

	// STS fails; as soon as Prometheus ends, what the next one reads is safe,
	// and it stays so while STS fails.
	fault := p.Fail("sts:*", awstest.Hang)
	prometheus.end()
	p.eventually(t, "the user's own configuration is served", func() bool { return p.served() == user })
	prometheus.start(t)
	prometheus.ready.Store(true)
	p.eventually(t, "the status tells the gap", func() bool {
		d := p.status(t).Destinations[0]
		return !d.Block && !d.GapSince.IsZero() && d.Error != ""
	})
	fault.Stop()
	p.eventually(t, "the next start would have the block", func() bool { return p.has("central") })
	if p.status(t).Destinations[0].Block {
		t.Error("the status says that Prometheus has the block, which it has not read")
	}
	prometheus.end()
	p.eventually(t, "its end is seen", func() bool { return !p.status(t).Prometheus.Listening })
	p.eventually(t, "the next one gets the block, STS having answered again", func() bool { return p.has("central") })
	if p.status(t).StartFailed {
		t.Error("a start is said to have failed")
	}
}

// TestStartFails: a Prometheus that ends before it was ever ready gets its own
// configuration for good, whatever STS and the sidecar do.
func TestStartFails(t *testing.T) {
	t.Parallel()
	p, prometheus := newPod(t, 3600, "central"), newServer(t, "3.15.0")
	p.startOnly(prometheus)
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	prometheus.start(t)
	p.eventually(t, "it is seen", func() bool { return p.status(t).Prometheus.Listening })
	prometheus.end()
	p.eventually(t, "the user's own configuration is served", func() bool { return p.served() == user })
	p.eventually(t, "the status tells", func() bool { return p.status(t).StartFailed })
	p.stop()
	p.start(t)
	p.eventually(t, "the sidecar knows after a restart", func() bool { return strings.Count(p.log.String(), "configuration served") == 3 })
	prometheus.start(t)
	prometheus.ready.Store(true)
	p.eventually(t, "Prometheus is ready", func() bool { return p.status(t).Prometheus.Ready })
	if p.served() != user || !p.status(t).StartFailed {
		t.Errorf("served %q", p.served())
	}
}

// TestStartFailsWithoutUs: what ends on its own configuration is none of ours.
func TestStartFailsWithoutUs(t *testing.T) {
	t.Parallel()
	p, prometheus := newPod(t, 3600, "central"), newServer(t, "3.15.0")
	p.startOnly(prometheus)
	fault := p.Fail("sts:*", awstest.Deny)
	p.start(t)
	p.eventually(t, "the user's own configuration is served", func() bool { return p.served() == user })
	prometheus.start(t)
	p.eventually(t, "it is seen", func() bool { return p.status(t).Prometheus.Listening })
	prometheus.end()
	p.eventually(t, "its end is seen", func() bool { return !p.status(t).Prometheus.Listening })
	fault.Stop()
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
}

// TestStartOnlyRestart: a sidecar that is started again beside a running
// Prometheus knows that it has the block.
func TestStartOnlyRestart(t *testing.T) {
	t.Parallel()
	p, prometheus := newPod(t, 3600, "central"), newServer(t, "3.15.0")
	prometheus.tls = true
	p.startOnly(prometheus)
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	prometheus.start(t)
	prometheus.ready.Store(true)
	p.eventually(t, "Prometheus has the block", func() bool { return p.status(t).Destinations[0].Block })
	p.stop()
	p.start(t)
	p.eventually(t, "the sidecar has looked", func() bool { return strings.Count(p.log.String(), "configuration served") == 2 })
	if d := p.status(t).Destinations[0]; !d.Block || !p.has("central") {
		t.Errorf("after a restart of the sidecar: %+v", d)
	}
	if text := p.log.String(); strings.Contains(text, `"level":"ERROR"`) {
		t.Error("an error is logged")
	}
}

// newer gives the pod's blocks fields that not every Prometheus knows.
func (p *pod) newer() {
	for i := range p.config.Destinations {
		b := &p.config.Destinations[i].Block
		b.SendNativeHistograms, b.QueueConfig.SampleAgeLimit = true, "30m"
	}
}

// TestVersions: a field that not every Prometheus knows is written once the
// running one is known to know it, and for as long as it runs.
func TestVersions(t *testing.T) {
	t.Parallel()
	const histograms, age = "send_native_histograms: true", "sample_age_limit: 30m"
	for _, c := range []struct {
		name, version   string
		histograms, age bool
		omitted         int
	}{
		{"3.15", "3.15.0", true, true, 0},
		{"2.42 of Debian", "2.42.0+ds", true, false, 1},
		{"2.39", "2.39.1", false, false, 2},
		{"one that does not tell", "", false, false, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p, prometheus := newPod(t, 3600, "central"), newServer(t, c.version)
			p.newer()
			p.config.Prometheus = sidecarconfig.Prometheus{Address: prometheus.address, Prefix: "/metrics-of"}
			p.start(t)
			p.eventually(t, "the block is served", func() bool { return p.has("central") })
			old := p.served()
			if strings.Contains(old, histograms) || strings.Contains(old, age) {
				t.Fatalf("newer fields before the version is known: %s", old)
			}
			prometheus.start(t)
			prometheus.ready.Store(true)
			p.eventually(t, "the version is found out", func() bool {
				s := p.status(t)
				return s.Prometheus.Ready && (s.Prometheus.Version != "") == (c.version != "") &&
					len(s.Destinations[0].Omitted) == c.omitted
			})
			p.eventually(t, "the block has what this version knows", func() bool {
				return strings.Contains(p.served(), histograms) == c.histograms && strings.Contains(p.served(), age) == c.age
			})
			if c.omitted == 0 {
				prometheus.end()
				p.eventually(t, "the next one gets what every version knows", func() bool { return p.served() == old })
			}
		})
	}
}

// TestVersionAfterARestart: a sidecar that is started again beside a running
// Prometheus gives no cause for a reload.
func TestVersionAfterARestart(t *testing.T) {
	t.Parallel()
	p, prometheus := newPod(t, 3600, "central"), newServer(t, "3.15.0")
	p.newer()
	p.config.Prometheus = sidecarconfig.Prometheus{Address: prometheus.address, Prefix: "/metrics-of"}
	prometheus.start(t)
	prometheus.ready.Store(true)
	p.start(t)
	p.eventually(t, "the block is served", func() bool { return p.has("central") })
	before := p.served()
	if !strings.Contains(before, "send_native_histograms") {
		t.Error("the first block lacks what the running Prometheus is known to know")
	}
	p.stop()
	p.start(t)
	begun := time.Now()
	p.eventually(t, "it has looked", func() bool { return strings.Count(p.log.String(), "configuration served") == 2 })
	if p.served() != before {
		t.Errorf("after %s: %s", time.Since(begun), p.served())
	}
}
