package relay

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the relay's metrics. They count AMP's answers by the class of their status, which
// limits the number of series. 429 has its own class.
type metrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_relay_requests_total", Help: "Writes that AMP answered, by status: 2xx, 3xx, 4xx, 429, 5xx.",
		}, []string{"destination", "status"}),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_relay_bytes_total", Help: "Bytes of the bodies that AMP answered, as sent (compressed).",
		}, []string{"destination"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ampbridge_relay_request_duration_seconds", Help: "Time from a write's arrival to AMP's answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"destination"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_relay_refused_total",
			Help: "Writes that were answered with 503, by reason. Prometheus keeps and repeats them. After a wrong " +
				"password the destination is empty.",
		}, []string{"destination", "reason"}),
	}
}

// announce creates the series of a destination, so that their first increase is visible.
func (m *metrics) announce(destination string) {
	for _, status := range []string{"2xx", "3xx", "4xx", "429", "5xx"} {
		m.requests.WithLabelValues(destination, status)
	}
	m.bytes.WithLabelValues(destination)
	m.seconds.WithLabelValues(destination)
	for _, reason := range refusals {
		if reason != wrongPassword {
			m.refused.WithLabelValues(destination, string(reason))
		}
	}
	m.refused.WithLabelValues("", string(wrongPassword))
}

func (m *metrics) observe(destination string, status, bytes int, took time.Duration) {
	class := strconv.Itoa(status/100) + "xx"
	if status == 429 {
		class = "429"
	}
	m.requests.WithLabelValues(destination, class).Inc()
	m.bytes.WithLabelValues(destination).Add(float64(bytes))
	m.seconds.WithLabelValues(destination).Observe(took.Seconds())
}

var (
	descRequests = prometheus.NewDesc("ampbridge_relay_requests_in_flight", "Writes that are being relayed.", nil, nil)
	descBytes    = prometheus.NewDesc("ampbridge_relay_bytes_in_flight", "Bytes of the bodies that are being relayed.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (r *Relay) Describe(out chan<- *prometheus.Desc) {
	for _, c := range r.metrics.collectors() {
		c.Describe(out)
	}
	out <- descRequests
	out <- descBytes
}

// Collect implements [prometheus.Collector].
func (r *Relay) Collect(out chan<- prometheus.Metric) {
	for _, c := range r.metrics.collectors() {
		c.Collect(out)
	}
	requests, bytes := r.room.used(r.options.Bounds)
	out <- prometheus.MustNewConstMetric(descRequests, prometheus.GaugeValue, float64(requests))
	out <- prometheus.MustNewConstMetric(descBytes, prometheus.GaugeValue, float64(bytes))
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.requests, m.bytes, m.seconds, m.refused}
}

func (r *room) used(b Bounds) (requests int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return b.Requests - r.requests, b.Bytes - r.bytes
}
