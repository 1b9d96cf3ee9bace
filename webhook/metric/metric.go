// Package metric declares the metrics of the webhook, sync, the auditor and the config sidecar.
package metric

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Declare makes metrics and registers them. It panics if the registry has the name already.
type Declare struct{ Registry prometheus.Registerer }

// Counter returns a new counter.
func (d Declare) Counter(name, help string) prometheus.Counter {
	return promauto.With(d.Registry).NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// CounterVec returns new counters that differ in their labels.
func (d Declare) CounterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return promauto.With(d.Registry).NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
}

// Gauge returns a new gauge.
func (d Declare) Gauge(name, help string) prometheus.Gauge {
	return promauto.With(d.Registry).NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
}

// GaugeVec returns new gauges that differ in their labels.
func (d Declare) GaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return promauto.With(d.Registry).NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}
