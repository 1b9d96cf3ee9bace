package audit

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/webhook/breaker"
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
	pods        *prometheus.GaugeVec
	evictions   *prometheus.CounterVec
	breaker     *prometheus.GaugeVec
	lastSuccess prometheus.Gauge
	statuses    *prometheus.GaugeVec

	open map[breaker.Workload]bool
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		pods: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ampbridge_audit_pods",
			Help: "Prometheus pods of labelled namespaces by what the last audit found: healthy, missed, outdated, " +
				"hanging, stuck, skipped.",
		}, []string{"finding"}),
		evictions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_audit_evictions_total",
			Help: "Evictions that the auditor asked for, by result: evicted, refused (a PodDisruptionBudget forbids it now), " +
				"kept (its successor would be refused, or could not be tried), gone, failed.",
		}, []string{"result"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ampbridge_audit_breaker_open",
			Help: "1 for each workload for which injection pauses, because its pods hung on the config sidecar or were " +
				"refused; kind and name are * if it pauses for a whole namespace.",
		}, []string{"namespace", "kind", "name"}),
		lastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ampbridge_audit_last_success_timestamp_seconds",
			Help: "When an audit of all namespaces was last completed.",
		}),
		statuses: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ampbridge_audit_sidecars",
			Help: "Config sidecars with a port, by whether the last audit could read their status: read or unread.",
		}, []string{"status"}),
		open: map[breaker.Workload]bool{},
	}
	for _, result := range []string{resultEvicted, resultRefused, resultKept, resultGone, resultFailed} {
		m.evictions.WithLabelValues(result)
	}
	for _, c := range []prometheus.Collector{m.pods, m.evictions, m.breaker, m.lastSuccess, m.statuses} {
		if err := registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
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
