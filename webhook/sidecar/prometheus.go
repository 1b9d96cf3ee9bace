package sidecar

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// This file reads Prometheus's own metrics. Only destinations with sigv4 need
// that: they depend on whether Prometheus has loaded a new session, and on what it has sent.

const (
	metricReloadOK   = "prometheus_config_last_reload_successful"
	metricReloadedAt = "prometheus_config_last_reload_success_timestamp_seconds"
	metricSent       = "prometheus_remote_storage_queue_highest_sent_timestamp_seconds"
	metricPending    = "prometheus_remote_storage_samples_pending"
	metricRetried    = "prometheus_remote_storage_samples_retried_total"

	// lookOften is the pause between two reads after a change, and lookSeldom the pause after
	// lookOftenFor, until Prometheus has loaded the change.
	lookOften, lookOftenFor, lookSeldom = time.Second, time.Minute, 10 * time.Second
	// answerLimit is the timeout for its answer.
	answerLimit = 5 * time.Second
	// maxMetrics limits the bytes that are read, and maxKept the bytes that are parsed.
	maxMetrics, maxKept = 32 << 20, 1 << 20
)

// observation is the result of the last read of Prometheus's metrics.
type observation struct {
	// absent is true if no process listens there, or if it has loaded no configuration yet. So
	// Prometheus will start with the files that are served now.
	absent bool
	// lastReload is when it last loaded a configuration. reloadFailed is true if
	// the latest attempt failed.
	lastReload   time.Time
	reloadFailed bool
	// queues are the queues of remote_write, by URL.
	queues map[string]queue
	// problem is why the metrics cannot be read; empty if they can.
	problem string
}

// queue is the state of one entry of remote_write.
type queue struct {
	// sent is the time of the newest sent sample.
	sent time.Time
	// pending is the number of samples in memory, and retried the number of samples that were sent
	// again. quiet is since when retried has not changed.
	pending, retried float64
	quiet            time.Time
}

// watch reads Prometheus's metrics during a move, and until Prometheus has loaded what is
// served.
func (s *server) watch(ctx context.Context) {
	client := localClient()
	for ctx.Err() == nil {
		pause := s.lookPause(time.Now())
		if pause > 0 {
			s.look(ctx, client)
		} else {
			pause = lookOften
		}
		sleep(ctx, pause)
	}
}

// localClient returns the client for Prometheus in the sidecar's own pod.
func localClient() *http.Client {
	return &http.Client{Timeout: answerLimit, Transport: &http.Transport{
		DisableKeepAlives: true,
		// The server is in the same pod, its certificate names a Service, and nothing secret is sent
		// to it, so the certificate need not be verified.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true},
	}}
}

// lookPause returns the pause before the next read; 0 if no read is needed.
func (s *server) lookPause(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	moving := slices.ContainsFunc(s.destinations, func(d *destination) bool { return d.delivery == sidecarconfig.DeliveryMoving })
	needed := slices.ContainsFunc(s.destinations, func(d *destination) bool {
		return d.holds || d.delivery == sidecarconfig.DeliverySigV4 || d.delivery == sidecarconfig.DeliveryMoving
	})
	switch {
	case !needed || s.served.key == "" || s.taken && !moving:
		return 0
	case now.Sub(s.swapped) > lookOftenFor:
		return lookSeldom
	}
	return lookOften
}

// look reads the metrics once.
func (s *server) look(ctx context.Context, client *http.Client) {
	seen, err := observe(ctx, client, s.config.Prometheus)
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.prometheus.problem, s.prometheus.absent = err.Error(), errors.Is(err, syscall.ECONNREFUSED)
		return
	}
	now := time.Now()
	for url, q := range seen.queues {
		q.quiet = now
		if before, ok := s.prometheus.queues[url]; ok && before.retried == q.retried {
			q.quiet = before.quiet
		}
		seen.queues[url] = q
	}
	s.prometheus = seen
	if !s.taken && !seen.reloadFailed && !seen.lastReload.Before(s.swapped) {
		s.noteTaken()
	}
}

// observe reads Prometheus's metrics. It fails if the answer is not a page of metrics.
func observe(ctx context.Context, client *http.Client, at sidecarconfig.Prometheus) (seen observation, err error) {
	err = readPage(ctx, client, at, func(page io.Reader) error {
		seen, err = parseMetrics(page)
		return err
	})
	return seen, err
}

// readPage reads Prometheus's page of metrics.
func readPage(ctx context.Context, client *http.Client, at sidecarconfig.Prometheus, read func(io.Reader) error) error {
	scheme := "http"
	if at.TLS {
		scheme = "https"
	}
	url := scheme + "://" + at.Address + at.Prefix + "/metrics"
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // the needed part was read
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the request for metrics was answered with %s", response.Status)
	}
	return read(io.LimitReader(response.Body, maxMetrics))
}

// parseMetrics parses only the few metrics that are needed, because the page may be large.
func parseMetrics(page io.Reader) (observation, error) {
	var kept bytes.Buffer
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		for _, name := range []string{metricReloadOK, metricReloadedAt, metricSent, metricPending, metricRetried} {
			if bytes.HasPrefix(lines.Bytes(), []byte(name)) {
				kept.Write(lines.Bytes())
				kept.WriteByte('\n')
			}
		}
		if kept.Len() > maxKept {
			return observation{}, fmt.Errorf("the metrics of reloads and remote_write are longer than %d bytes", maxKept)
		}
	}
	if err := lines.Err(); err != nil {
		return observation{}, err
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(&kept)
	if err != nil {
		return observation{}, err
	}
	if families[metricReloadOK] == nil || families[metricReloadedAt] == nil {
		return observation{}, fmt.Errorf("the metrics lack %s", metricReloadOK)
	}
	seen := observation{queues: map[string]queue{}}
	if at := families[metricReloadedAt].GetMetric()[0].GetUntyped().GetValue(); at > 0 {
		seen.lastReload = fromSeconds(at)
		seen.reloadFailed = families[metricReloadOK].GetMetric()[0].GetUntyped().GetValue() == 0
	}
	seen.absent = seen.lastReload.IsZero()
	for _, field := range []struct {
		metric string
		set    func(*queue, float64)
	}{
		{metricSent, func(q *queue, v float64) { q.sent = fromSeconds(v) }},
		{metricPending, func(q *queue, v float64) { q.pending = v }},
		{metricRetried, func(q *queue, v float64) { q.retried = v }},
	} {
		for _, m := range families[field.metric].GetMetric() {
			for _, label := range m.GetLabel() {
				if label.GetName() == "url" {
					q := seen.queues[label.GetValue()]
					field.set(&q, m.GetUntyped().GetValue())
					seen.queues[label.GetValue()] = q
				}
			}
		}
	}
	return seen, nil
}

func fromSeconds(seconds float64) time.Time { return time.UnixMicro(int64(seconds * 1e6)) }
