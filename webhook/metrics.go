package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Values of the label "decision".
const (
	decisionInject = "inject"
	decisionSkip   = "skip"
	// decisionError means that the webhook could not decide and admitted the object unchanged.
	decisionError = "error"
)

// Metrics are the webhook's own metrics.
type Metrics struct {
	decisions         *prometheus.CounterVec
	duration          *prometheus.HistogramVec
	refused           *prometheus.CounterVec
	policyReviews     *prometheus.CounterVec
	policyLoadErrors  prometheus.Counter
	policyLastSuccess prometheus.Gauge
	policyFromCopy    prometheus.Gauge
	policyInfo        *prometheus.GaugeVec
}

// NewMetrics creates and registers the webhook's metrics.
func NewMetrics(registry prometheus.Registerer) *Metrics {
	m := &Metrics{
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_admission_decisions_total",
			Help: "Admission requests by resource (pod, serviceaccount), decision (inject, skip, error) and reason.",
		}, []string{"resource", "decision", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "ampbridge_admission_duration_seconds",
			Help: "The webhook's own time for one admission request, look-ups in the cluster included.",
			// The target is 10 ms; a failed look-up takes two seconds.
			Buckets: []float64{.00025, .0005, .001, .0015, .002, .003, .004, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"resource"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_admission_requests_refused_total",
			Help: "Requests that are not a valid review or that sent no complete body, by HTTP status of the answer.",
		}, []string{"status"}),
		policyReviews: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_policy_reviews_total",
			Help: "Versions of the policy that users applied, by decision (accepted, refused, unchecked).",
		}, []string{"decision"}),
		policyLoadErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ampbridge_policy_load_errors_total",
			Help: "Versions of the policy file that were refused.",
		}),
		policyLastSuccess: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ampbridge_policy_last_load_success",
			Help: "1: the newest version of the policy file is in force; 0: it was refused, and the last good version, if any, stays in force.",
		}),
		policyFromCopy: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "ampbridge_policy_from_accepted_copy",
			Help: "1: the policy in force is the copy of the last good version in ConfigMap ampbridge-policy-accepted, because the file " +
				"has had mistakes since the start; 0: it is the policy in the file.",
		}),
		policyInfo: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ampbridge_policy_info",
			Help: "1 for the policy in force; hash is the beginning of the SHA-256 of its file.",
		}, []string{"hash"}),
	}
	registry.MustRegister(
		m.decisions,
		m.duration,
		m.refused,
		m.policyReviews,
		m.policyFromCopy,
		m.policyLoadErrors,
		m.policyLastSuccess,
		m.policyInfo,
	)
	return m
}

func (m *Metrics) observe(resource, decision, reason string, took time.Duration) {
	m.decisions.WithLabelValues(resource, decision, reason).Inc()
	m.duration.WithLabelValues(resource).Observe(took.Seconds())
}
