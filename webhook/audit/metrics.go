package audit

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/metric"
)

// Values of the label result.
const (
	resultEvicted = "evicted"
	// resultRefused: refused by a PodDisruptionBudget, or by an overloaded API server.
	resultRefused = "refused"
	// resultKept: the successor would be refused, or could not be tried.
	resultKept = "kept"
	// resultGone: the pod has ended or changed in the meantime.
	resultGone   = "gone"
	resultFailed = "failed"
)

type metrics struct {
	pods, breaker, statuses *prometheus.GaugeVec
	evictions               *prometheus.CounterVec
	lastSuccess             prometheus.Gauge

	open map[breaker.Workload]bool
}

func newMetrics(registry prometheus.Registerer) *metrics {
	declare := metric.Declare{Registry: registry}
	m := &metrics{
		pods: declare.GaugeVec("ampbridge_audit_pods",
			"Prometheus pods of labelled namespaces by what the last audit found: healthy, missed, outdated, "+
				"hanging, stuck, skipped.", "finding"),
		evictions: declare.CounterVec("ampbridge_audit_evictions_total",
			"Evictions that the auditor asked for, by result: evicted, refused (a PodDisruptionBudget forbids it now), "+
				"kept (its successor would be refused, or could not be tried), gone, failed.", "result"),
		breaker: declare.GaugeVec("ampbridge_audit_breaker_open",
			"1 for each workload for which injection pauses, because its pods hung on the config sidecar or were "+
				"refused; kind and name are * if it pauses for a whole namespace.", "namespace", "kind", "name"),
		lastSuccess: declare.Gauge("ampbridge_audit_last_success_timestamp_seconds",
			"When an audit of all namespaces was last completed."),
		statuses: declare.GaugeVec("ampbridge_audit_sidecars",
			"Config sidecars with a port, by whether the last audit could read their status: read or unread.", "status"),
		open: map[breaker.Workload]bool{},
	}
	for _, result := range []string{resultEvicted, resultRefused, resultKept, resultGone, resultFailed} {
		m.evictions.WithLabelValues(result)
	}
	return m
}

func (m *metrics) found(pods []observed) {
	count := map[Kind]int{}
	for _, o := range pods {
		count[o.Kind]++
	}
	for _, k := range kinds {
		m.pods.WithLabelValues(string(k)).Set(float64(count[k]))
	}
}

func (m *metrics) sidecars(read, unread int) {
	m.statuses.WithLabelValues("read").Set(float64(read))
	m.statuses.WithLabelValues("unread").Set(float64(unread))
}

// breakers changes only the values that differ, so that a scrape in between sees no gap. It leaves
// out entries of outdated revisions, because they have no effect any more.
func (m *metrics) breakers(state breaker.State, outdated map[string]outdated) {
	open := map[breaker.Workload]bool{}
	for _, e := range state.Entries() {
		if _, out := outdated[e.Key()]; out || open[e.Workload] {
			continue
		}
		open[e.Workload] = true
		m.breaker.WithLabelValues(e.Namespace, e.Kind, e.Name).Set(1)
	}
	for w := range m.open {
		if !open[w] {
			m.breaker.DeleteLabelValues(w.Namespace, w.Kind, w.Name)
		}
	}
	m.open = open
}
