package certificates

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/webhook/metric"
)

// stateNames are all results of State.Name.
var stateNames = []string{"none", "stable", "announcing", "retiring"}

type rotatorMetrics struct {
	state   *prometheus.GaugeVec
	trusted prometheus.Gauge
	errors  prometheus.Counter
}

func newRotatorMetrics(registry prometheus.Registerer) *rotatorMetrics {
	declare := metric.Declare{Registry: registry}
	m := &rotatorMetrics{
		state: declare.GaugeVec("ampbridge_certificate_state",
			"1 for the current state of the Secret: none, stable, announcing (a new authority is being published), "+
				"retiring (the old one is still trusted).", "state"),
		trusted: declare.Gauge("ampbridge_certificate_trusted",
			"1 if the API server's configuration trusts the certificate that this process serves; 0 if it does "+
				"not, so that calls fail."),
		errors: declare.Counter("ampbridge_certificate_errors_total",
			"Failed attempts to maintain the certificate and the configuration; the log has the reasons."),
	}
	m.record(State{}, false)
	return m
}

func (m *rotatorMetrics) record(s State, trusted bool) {
	for _, name := range stateNames {
		value := 0.0
		if name == s.Name() {
			value = 1
		}
		m.state.WithLabelValues(name).Set(value)
	}
	m.trusted.Set(0)
	if trusted {
		m.trusted.Set(1)
	}
}
