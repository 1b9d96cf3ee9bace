package webhook

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/ampbridge/ampbridge/webhook/metric"
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
	declare := metric.Declare{Registry: registry}
	return &Metrics{
		decisions: declare.CounterVec("ampbridge_admission_decisions_total",
			"Admission requests by resource (pod, serviceaccount), decision (inject, skip, error) and reason.",
			"resource", "decision", "reason"),
		duration: promauto.With(registry).NewHistogramVec(prometheus.HistogramOpts{
			Name: "ampbridge_admission_duration_seconds",
			Help: "The webhook's own time for one admission request, look-ups in the cluster included.",
			// The target is 10 ms; a failed look-up takes two seconds.
			Buckets: []float64{.00025, .0005, .001, .0015, .002, .003, .004, .005, .0075, .01, .015, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"resource"}),
		refused: declare.CounterVec("ampbridge_admission_requests_refused_total",
			"Requests that are not a valid review or that sent no complete body, by HTTP status of the answer.", "status"),
		policyReviews: declare.CounterVec("ampbridge_policy_reviews_total",
			"Versions of the policy that users applied, by decision (accepted, refused, unchecked).", "decision"),
		policyLoadErrors: declare.Counter("ampbridge_policy_load_errors_total",
			"Versions of the policy file that were refused."),
		policyLastSuccess: declare.Gauge("ampbridge_policy_last_load_success",
			"1: the newest version of the policy file is in force; 0: it was refused, and the last good version, if any, "+
				"stays in force."),
		policyFromCopy: declare.Gauge("ampbridge_policy_from_accepted_copy",
			"1: the policy in force is the copy of the last good version in ConfigMap ampbridge-policy-accepted, because the file "+
				"has had mistakes since the start; 0: it is the policy in the file."),
		policyInfo: declare.GaugeVec("ampbridge_policy_info",
			"1 for the policy in force; hash is the beginning of the SHA-256 of its file.", "hash"),
	}
}

func (m *Metrics) observe(resource, decision, reason string, took time.Duration) {
	m.decisions.WithLabelValues(resource, decision, reason).Inc()
	m.duration.WithLabelValues(resource).Observe(took.Seconds())
}
