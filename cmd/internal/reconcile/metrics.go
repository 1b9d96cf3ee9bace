package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/webhook/metric"
)

// metrics are the metrics of a running sync.
type metrics struct {
	leader, leaderSeen, destinations, lastSuccess, refusals, additions, policyLoaded prometheus.Gauge
	subjects                                                                         *prometheus.GaugeVec
	changes, iamCalls                                                                *prometheus.CounterVec
	drift                                                                            prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) *metrics {
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	declare := metric.Declare{Registry: registry}
	return &metrics{
		leader: declare.Gauge("ampbridge_sync_leader", "1 if this process is the leader, which syncs; 0 if it is on standby."),
		leaderSeen: declare.Gauge("ampbridge_sync_last_leader_seen_timestamp_seconds",
			"When this process last was the leader or saw another process renew the Lease, in Unix time; 0 if never."),
		destinations: declare.Gauge("ampbridge_sync_destinations", "Destinations with roles that sync manages."),
		lastSuccess: declare.Gauge("ampbridge_sync_last_success_timestamp_seconds",
			"When a pass last left everything in sync, in Unix time."),
		refusals: declare.Gauge("ampbridge_sync_refusals",
			"What the policy wants and the last pass refused; the log has the reasons."),
		additions: declare.Gauge("ampbridge_sync_foreign_additions",
			"Number of tags and policies that others have added to ampbridge's roles; sync does not remove them, and the "+
				"log names them."),
		policyLoaded: declare.Gauge("ampbridge_policy_last_load_success",
			"1 if the newest version of the policy file is in force; 0 if it was refused. Then the last good version "+
				"stays in force, if there is one."),
		subjects: declare.GaugeVec("ampbridge_sync_subjects",
			"Service accounts that a destination's role trusts, as the last pass planned it.", "destination"),
		changes: declare.CounterVec("ampbridge_sync_changes_total",
			"Changes by the IAM operation (kind) and result: made, failed, or skipped because of another failure.",
			"kind", "result"),
		iamCalls: declare.CounterVec("ampbridge_sync_iam_calls_total",
			"Calls to IAM and AMP, counting each attempt, by operation and result: ok, AWS's error code, or no answer.",
			"operation", "result"),
		drift: declare.Counter("ampbridge_sync_drift_found_total",
			"Changes that were needed although neither the policy nor the service accounts had changed: somebody "+
				"edited AWS by hand."),
	}
}

func (m *metrics) called(operation, result string) {
	m.iamCalls.WithLabelValues(operation, result).Inc()
}

func (m *metrics) planned(p *policy.Policy, made plan.Plan) {
	managed := 0
	for _, d := range p.Destinations {
		if plan.Managed(p, d) {
			managed++
		}
	}
	m.destinations.Set(float64(managed))
	m.refusals.Set(float64(len(made.Refusals)))
	m.additions.Set(float64(len(made.Drift)))
	m.subjects.Reset()
	for _, d := range p.Destinations {
		m.subjects.WithLabelValues(d.Name).Set(0)
	}
	for _, s := range made.SubjectStatuses {
		if s.State == plan.Trusted {
			m.subjects.WithLabelValues(s.Destination).Inc()
		}
	}
}

func (m *metrics) applied(made []plan.Change, failures []Failure, inSync bool, now time.Time) {
	for _, c := range made {
		m.changes.WithLabelValues(string(c.Call), "made").Inc()
	}
	for _, f := range failures {
		result := "failed"
		if f.skipped {
			result = "skipped"
		}
		m.changes.WithLabelValues(string(f.Call), result).Inc()
	}
	if inSync {
		m.lastSuccess.Set(float64(now.UnixMilli()) / 1000)
	}
}
