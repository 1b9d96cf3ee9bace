package reconcile

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// metrics are what the controller form of sync counts.
type metrics struct {
	leader, leaderSeen, destinations, lastSuccess, refusals, additions, policyLoaded prometheus.Gauge
	subjects                                                                         *prometheus.GaugeVec
	changes, iamCalls                                                                *prometheus.CounterVec
	drift                                                                            prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	m := &metrics{
		leader: gauge("ampbridge_sync_leader", "1: this process is the one that syncs; 0: it stands by."),
		leaderSeen: gauge(
			"ampbridge_sync_last_leader_seen_timestamp_seconds",
			"When this process last led or saw another process renew the Lease, in Unix time; 0: never.",
		),
		destinations: gauge("ampbridge_sync_destinations", "Destinations whose roles sync keeps."),
		lastSuccess:  gauge("ampbridge_sync_last_success_timestamp_seconds", "When a pass last left everything in sync, in Unix time."),
		refusals:     gauge("ampbridge_sync_refusals", "What the policy asks for and the last pass refused; the log says why."),
		additions: gauge(
			"ampbridge_sync_foreign_additions",
			"What others have added to ampbridge's roles, tags or policies; sync does not remove it, and the log names it.",
		),
		policyLoaded: gauge(
			"ampbridge_policy_last_load_success",
			"1: the newest version of the policy file is in force; 0: it was refused, and the last good one, if any, still is.",
		),
		subjects: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "ampbridge_sync_subjects", Help: "Service accounts that a destination's role trusts, as the last pass planned it.",
		}, []string{"destination"}),
		changes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_sync_changes_total",
			Help: "Changes by the IAM operation (kind) and result: made, failed, or skipped because of another failure.",
		}, []string{"kind", "result"}),
		iamCalls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ampbridge_sync_iam_calls_total",
			Help: "Calls to IAM and AMP, each attempt for itself, by operation and result: ok, AWS's error code, or no answer.",
		}, []string{"operation", "result"}),
		drift: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ampbridge_sync_drift_found_total",
			Help: "Changes that became necessary though neither policy nor service accounts had changed: somebody edited by hand.",
		}),
	}
	registry.MustRegister(
		m.leader,
		m.leaderSeen,
		m.destinations,
		m.lastSuccess,
		m.refusals,
		m.additions,
		m.policyLoaded,
		m.subjects,
		m.changes,
		m.iamCalls,
		m.drift,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
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
