package sidecar

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/metric"
)

// metrics are the counters. All other metrics are read from the server when they are scraped.
type metrics struct {
	registry *prometheus.Registry
	renewals *prometheus.CounterVec
	renders  *prometheus.CounterVec
	moves    *prometheus.CounterVec
}

func newMetrics(s *server) metrics {
	registry := prometheus.NewRegistry()
	registry.MustRegister(throttling{}, collector{s})
	declare := metric.Declare{Registry: registry}
	return metrics{
		registry: registry,
		renewals: declare.CounterVec("ampbridge_session_renewals_total",
			"Attempts to get a session from STS, by result: success, failure.", "destination", "result"),
		renders: declare.CounterVec("ampbridge_config_renders_total",
			"Configurations served, by result: rendered (with a block), plain (no block was due), passed_through (it "+
				"cannot be edited), mirrored (there is no such file); and failure, if nothing could be served.", "result"),
		moves: declare.CounterVec("ampbridge_moves_total",
			"Moves from sigv4 to the relay, by reason: start (there was no session), renewal (there was no new "+
				"session), reload (Prometheus did not load it).", "destination", "reason"),
	}
}

// announce creates the series of a destination, so that their first increase is visible.
func (m metrics) announce(destination string) {
	for _, result := range []string{"success", "failure"} {
		m.renewals.WithLabelValues(destination, result)
	}
	for _, label := range moveLabels {
		m.moves.WithLabelValues(destination, label)
	}
}

// collector returns metrics of the server's state.
type collector struct{ *server }

var (
	descValid  = desc("ampbridge_session_valid", "1 while the destination's session can sign.", "destination")
	descExpiry = desc("ampbridge_session_expiry_timestamp_seconds",
		"When the destination's session expires.", "destination")
	descGap = desc("ampbridge_gap_seconds",
		"Time since the sidecar's start without the destination's block; samples of that time are not sent later.", "destination")
	descServed = desc("ampbridge_block_served",
		"1 while the destination's block is in the configuration that is served.", "destination")
	descOwnEntry = desc("ampbridge_block_own_entry",
		"1 if the user's own remote_write writes to the destination's workspace, so that no block is added.", "destination")
	descOmitted = desc("ampbridge_block_field_omitted",
		"1 for a field of the policy that is not in the block, because this Prometheus is too old for it or its version "+
			"is not known.", "destination", "field", "since")
	descDelivery = desc("ampbridge_delivery",
		"The destination's delivery: sigv4, relay, or moving from sigv4 to the relay.", "destination", "delivery")
	descNotTaken = desc("ampbridge_session_not_taken",
		"1 while Prometheus has neither loaded the latest session nor moved to the relay; its writes fail when its "+
			"current session ends.", "destination")
	descIdle = desc("ampbridge_loop_idle_seconds",
		"Time since the configuration loop last moved. It moves several times a second; after a minute the liveness probe "+
			"fails.")
	descLastRender = desc("ampbridge_config_last_render_timestamp_seconds",
		"When a configuration was last served.")
	descConfig = desc("ampbridge_config_info",
		"Hashes of the user's configuration and of the served one.", "source_hash", "rendered_hash")
	descSize = desc("ampbridge_config_bytes", "Size of the user's configuration, unzipped.")
	descNeed = desc("ampbridge_config_edit_memory_bytes", "Memory that an edit of the configuration may need.")
	descEdit = desc("ampbridge_config_edit_memory_limit_bytes",
		"Memory that an edit may use; a configuration that needs more gets no block. It follows from the container's "+
			"memory limit.")
)

// desc describes a metric whose values depend on the named labels.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// Describe implements [prometheus.Collector].
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descIdle, descValid, descExpiry, descGap, descServed, descOwnEntry, descOmitted, descDelivery,
		descNotTaken, descLastRender, descConfig, descSize, descNeed, descEdit} {
		out <- d
	}
}

// Collect implements [prometheus.Collector].
func (c collector) Collect(out chan<- prometheus.Metric) {
	now := time.Now()
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	gauge(descIdle, c.idle().Seconds())
	if !c.lockWithin(lockLimit) {
		return // the loop hangs, and this scrape must show that
	}
	defer c.mu.Unlock()
	for _, d := range c.destinations {
		gauge(descValid, number(d.session().Valid(now)), d.Name)
		if d.delivery != "" {
			gauge(descDelivery, 1, d.Name, string(d.delivery))
		}
		gauge(descNotTaken, number(c.notTaken(d, now)), d.Name)
		gauge(descServed, number(slices.Contains(c.served.destinations, d.Name)), d.Name)
		gauge(descOwnEntry, number(d.skipped != ""), d.Name)
		for _, o := range d.omitted {
			gauge(descOmitted, 1, d.Name, o.Field, o.Since.String())
		}
		if expires := d.session().Expires; !expires.IsZero() {
			gauge(descExpiry, seconds(expires), d.Name)
		}
		gauge(descGap, d.missing(now).Seconds(), d.Name)
	}
	if c.served.key != "" {
		gauge(descLastRender, seconds(c.served.at))
		gauge(descConfig, 1, c.served.source, c.served.rendered)
	}
	if c.served.size > 0 {
		gauge(descSize, float64(c.served.size))
		gauge(descNeed, float64(c.served.need))
	}
	if c.memory > 0 {
		gauge(descEdit, float64(sidecarconfig.BudgetOf(c.memory).Edit))
	}
}

// lockLimit is how long a scrape waits for the lock.
const lockLimit = 2 * time.Second

// lockWithin locks mu, and reports whether it succeeded within the limit.
func (s *server) lockWithin(limit time.Duration) bool {
	for deadline := time.Now().Add(limit); !s.mu.TryLock(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

func number(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

// missing returns how long the block has been missing in total.
func (d *destination) missing(now time.Time) time.Duration {
	if d.out.IsZero() {
		return d.gap
	}
	return d.gap + now.Sub(d.out)
}

// portPause is the pause before the next attempt if another process has the port.
const portPause = 30 * time.Second

// metricsAddress returns the address with the port that the webhook chose; empty
// if there is none.
func (s *server) metricsAddress(address string) string {
	port := s.config.MetricsPort
	host, _, err := net.SplitHostPort(address)
	switch {
	case port == sidecarconfig.NoMetrics || address == "":
		return ""
	case port <= 0 || err != nil:
		return address
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// serveMetrics serves the metrics and the status until ctx ends. If another process has the port,
// it tries again, and the sidecar continues its work.
func (s *server) serveMetrics(ctx context.Context, address string) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+sidecarconfig.StatusPath, s.serveStatus)
	mux.HandleFunc("GET "+sidecarconfig.QueuesPath, s.serveQueues)
	mux.Handle("GET "+sidecarconfig.MetricsPath, promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{DisableCompression: true}))
	for told := false; ; {
		var config net.ListenConfig
		socket, err := config.Listen(ctx, "tcp", address)
		if err == nil {
			told = false
			server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
			stop := context.AfterFunc(ctx, func() { _ = server.Close() })
			err = server.Serve(socket)
			stop()
		}
		if ctx.Err() != nil {
			return
		}
		if !told && !errors.Is(err, http.ErrServerClosed) {
			told = true
			s.log.Warn("metrics are not served: will try again", "address", address, "error", err)
		}
		if !sleep(ctx, portPause) {
			return
		}
	}
}
