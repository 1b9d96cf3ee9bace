package check

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Metrics are the samples of one scrape, by name.
type Metrics map[string][]Sample

// Sample is one series and its value.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// of returns the value of a metric without labels; ok is false if there is none.
func (m Metrics) of(name string) (v float64, ok bool) {
	if len(m[name]) == 0 {
		return 0, false
	}
	return m[name][0].Value, true
}

// lagTolerated is how far remote_write may be behind before samples queue up.
const lagTolerated = 2 * time.Minute

// FlowWindow is the time between two reads after which a queue without progress is stuck. A
// batch waits up to 5 seconds for more samples, and a new queue needs about as long to start.
const FlowWindow = 20 * time.Second

// queue is one remote_write of Prometheus, by its own metrics.
type queue struct {
	found bool
	// newest is the time of the newest sample to send; 0: there is none.
	newest float64
	// sent is the time of the newest sample that was sent or given up; 0: there is none.
	sent float64
	// attempts counts every attempt to send a sample, including retries and refusals. Native
	// histograms count as samples.
	attempts, retried, failed, pending float64
	// relabelled counts samples that write_relabel_configs dropped.
	relabelled float64
	// losses are the other data that Prometheus gave up.
	losses []loss
	// counted is true if Prometheus is older than 2.23: it counts accepted samples, not attempts.
	counted  bool
	accepted float64
}

// queue returns the queue of a block. Since Prometheus 2.15 its labels are the block's name and
// URL. In older versions they are its index and URL, and the metrics have other names. A
// block that writes to the relay may have no name. A pod that moves from sigv4 to the relay
// has both queues, and keeps the relay's.
func (m Metrics) queue(b policy.Block) (q queue) {
	const prefix = "prometheus_remote_storage_"
	var labels map[string]string
	for _, metric := range []string{"samples_total", "succeeded_samples_total"} {
		for _, s := range m[prefix+metric] {
			relayed := relays(s.Labels, b)
			if relayed || labels == nil && s.Labels["remote_name"] == b.Name {
				labels = s.Labels
			}
			if relayed {
				break
			}
		}
	}
	if labels == nil {
		return q
	}
	q.found = true
	read := func(names ...string) (v float64) {
		for _, name := range names {
			for _, s := range m[prefix+name] {
				if same(s.Labels, labels, "remote_name", "url", "queue") {
					return s.Value
				}
			}
		}
		return 0
	}
	q.sent = read("queue_highest_sent_timestamp_seconds")
	q.retried = read("samples_retried_total", "retried_samples_total") + read("histograms_retried_total")
	q.failed = read("samples_failed_total", "failed_samples_total") + read("histograms_failed_total")
	q.pending = read("samples_pending", "pending_samples") + read("histograms_pending")
	q.attempts = read("samples_total") + read("histograms_total")
	if q.counted = len(m[prefix+"succeeded_samples_total"]) > 0; q.counted {
		q.accepted = read("succeeded_samples_total")
		q.attempts = q.accepted + q.retried + q.failed
	}
	for _, s := range m[prefix+"highest_timestamp_in_seconds"] {
		q.newest = max(q.newest, s.Value)
	}
	q.newest = max(q.newest, read("queue_highest_timestamp_seconds"))
	for _, s := range m[prefix+"samples_dropped_total"] {
		if s.Labels["reason"] == "dropped_series" && same(s.Labels, labels, "remote_name", "url", "queue") {
			q.relabelled += s.Value
		}
	}
	for _, l := range losses {
		for _, s := range m[prefix+l.metric] {
			if s.Value > 0 && same(s.Labels, labels, "remote_name", "url", "queue") && s.Labels["reason"] == l.reason {
				l.count = s.Value
				q.losses = append(q.losses, l)
			}
		}
	}
	if in, _ := m.of(prefix + "histograms_in_total"); in > 0 && !b.SendNativeHistograms {
		q.losses = append(q.losses, loss{
			count: in, what: "native histograms were not sent",
			fix: "write sendNativeHistograms: true under remoteWrite in the policy (Prometheus 2.40 and newer)",
		})
	}
	return q
}

// loss is data that Prometheus gave up, without the samples that AMP refuses. queueState judges
// those.
type loss struct {
	metric, reason string
	count          float64
	what, fix      string
}

// losses are the counters that [Metrics.queue] reads. They do not include samples that the user's
// write_relabel_configs drop (reason dropped_series). Before 2.53 the counters have no reason and
// may include those samples.
var losses = []loss{
	{
		metric: "metadata_failed_total", what: "metadata entries (HELP, TYPE) were refused",
		fix: "AMP takes HELP texts of at most 1 KB: write metadata: {send: false} under remoteWrite in the policy, or " +
			"shorten the text",
	},
	{
		metric: "exemplars_failed_total", what: "exemplars were refused",
		fix: "write sendExemplars: false under remoteWrite in the policy; see Prometheus's log for AMP's reason",
	},
	{metric: "samples_dropped_total", reason: "too_old", what: "samples were dropped as too old", fix: fixTooOld},
	{
		metric: "histograms_dropped_total",
		reason: "too_old",
		what:   "native histograms were dropped as too old",
		fix:    fixTooOld,
	},
	{metric: "exemplars_dropped_total", reason: "too_old", what: "exemplars were dropped as too old", fix: fixTooOld},
	{
		metric: "samples_dropped_total", reason: "unintentionally_dropped_series",
		what: "samples were dropped for series that it did not know",
		fix:  fixUnknownSeries,
	},
	{
		metric: "histograms_dropped_total", reason: "unintentionally_dropped_series",
		what: "native histograms were dropped for series that it did not know", fix: fixUnknownSeries,
	},
}

const (
	fixTooOld = "remote_write was behind for longer than sampleAgeLimit, or an exporter sets old timestamps: see " +
		"Prometheus's log for what " +
		"AMP answered then"
	fixUnknownSeries = "a few after a start are normal; more mean a damaged WAL: see Prometheus's log"
)

// relays reports whether the labels are those of the block's queue to the pod's relay.
func relays(labels map[string]string, b policy.Block) bool {
	at := labels["url"]
	if at == "" {
		_, at, _ = strings.Cut(labels["queue"], ":") // 0:http://…
	}
	u, err := url.Parse(at)
	return err == nil && u.Hostname() == "127.0.0.1" && u.Path == b.RelayPath()
}

// same reports whether two sets of labels have the same values for the names.
func same(a, b map[string]string, names ...string) bool {
	for _, name := range names {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}

// lag returns how far the queue is behind.
func (q queue) lag() time.Duration { return seconds(max(0, q.newest-q.sent)) }

// idleLimit is the largest age of the newest sent sample in a healthy queue.
const idleLimit = 10 * time.Minute

// clock returns Prometheus's time. That is the time of its last garbage collection, and there is
// one every two minutes. If Prometheus does not report it, clock returns now, which is doctor's
// time.
func (m Metrics) clock(now time.Time) time.Time {
	if collected, _ := m.of("go_memstats_last_gc_time_seconds"); collected > 0 {
		return unix(collected)
	}
	return now
}

// FlowState judges remote_write by two reads of Prometheus's own metrics. If the finding is
// not final, the caller reads again, until the reads are FlowWindow apart. now is doctor's
// time.
func FlowState(first, last Metrics, apart time.Duration, blocks []policy.Block, now time.Time) (f Finding, final bool) {
	clock := last.clock(now)
	started, known := last.of("process_start_time_seconds")
	up := clock.Sub(unix(started))
	if !known {
		up = 0
	}
	worst, final := Finding{ID: Flow, Status: Pass}, true
	var messages []string
	for _, b := range blocks {
		one, done := queueState(cmp.Or(b.Name, b.ID), first.queue(b), last.queue(b), apart, clock, up)
		final = final && done
		// A skipped check and a warning count as equally bad here.
		if one.Status.Worse(worst.Status) && worst.Status != Skip || one.Status == Skip && worst.Status == Warn ||
			one.Status == Fail {
			worst = one
		}
		messages = append(messages, one.Message)
	}
	if worst.Status == Pass {
		worst.Message = strings.Join(messages, "; ")
	}
	return worst, final
}

// queueState judges one queue. final is false if a later read may change the finding. clock is
// Prometheus's time. up is how long it has been running; 0: not known.
func queueState(
	name string,
	was, is queue,
	apart time.Duration,
	clock time.Time,
	up time.Duration,
) (f Finding, final bool) {
	if !is.found {
		return Failed(
			Flow,
			About{},
			NewFix("let Prometheus read its configuration again (the pod's reloader, or a new pod)"),
			"Prometheus has no remote_write of the name %s: it has not applied the configuration that the sidecar serves",
			name,
		), apart >= FlowWindow
	}
	log := NewFix(
		"see Prometheus's log for errors of remote_write: AMP throttles (429), refuses (403, 400), or does not answer",
	)
	age := clock.Sub(unix(is.sent))
	if is.sent > 0 && is.failed == 0 && is.retried == 0 && is.lag() <= lagTolerated && age <= idleLimit {
		// AMP accepted every sample at the first attempt.
		return is.lost(
			name,
			Passed(Flow, About{}, "%s is %s behind, nothing refused, nothing retried", name, Span(is.lag())),
		), true
	}
	if is.attempts < was.attempts || is.failed < was.failed || !was.found {
		was = queue{} // Prometheus restarted, or reloaded its configuration, between the reads
	}
	failed, retried := is.failed-was.failed, is.retried-was.retried
	// A pending sample may be an attempt without an answer yet.
	taken := is.attempts - was.attempts - retried - failed - is.pending
	if is.counted {
		taken = is.accepted - was.accepted
	}
	advanced := is.sent > was.sent
	switch {
	case advanced && taken > 0 && failed > taken:
		return Failed(Flow, About{}, NewFix("see Prometheus's log for AMP's reason: duplicates and out of order come from two Prometheus "+
			"servers with the same labels; Prometheus does not send refused samples again"),
			"%s: %.0f samples were refused within %s, and fewer were accepted", name, failed, Span(apart)), true
	case advanced && (failed == 0 || taken > 0):
		return is.lost(name, flowing(name, was, is, log)), true
	case apart < FlowWindow:
		return Skipped(Flow, About{}, "%s: not known yet", name), false
	case failed > 0:
		return Failed(
			Flow,
			About{},
			NewFix("see Prometheus's log for AMP's reason; Prometheus does not send refused samples again"),
			"%s: %.0f samples were refused within %s, and none is known to be accepted",
			name,
			failed,
			Span(apart),
		), true
	case is.pending > 0 || retried > 0:
		since := "none was ever sent"
		if is.sent > 0 {
			since = "the newest that was sent is " + Span(is.lag()) + " behind"
		}
		return Failed(
			Flow,
			About{},
			log,
			"%s: %.0f samples are pending, %.0f were retried within %s, and none was sent; %s",
			name,
			is.pending,
			retried,
			Span(apart),
			since,
		), true
	case is.sent == 0 && is.attempts == 0 && is.relabelled > 0:
		return Failed(
			Flow,
			About{},
			NewFix("correct remoteWrite.writeRelabelConfigs in the policy"),
			"%s: nothing was ever sent: writeRelabelConfigs dropped all %.0f samples",
			name,
			is.relabelled,
		), true
	case is.sent == 0 && up > idleLimit:
		return Failed(
			Flow,
			About{},
			takesNone,
			"%s: nothing was ever sent, and Prometheus has been running for %s",
			name,
			Span(up),
		), true
	case is.sent > 0 && age > idleLimit:
		return Failed(
			Flow,
			About{},
			takesNone,
			"%s: nothing is flowing: the newest sample that was sent is %s old, and nothing waits to be sent",
			name,
			Span(age),
		), true
	case is.sent == 0:
		return Skipped(
			Flow,
			About{},
			"%s: nothing was sent yet, and nothing waits to be sent: run doctor again after the next scrape",
			name,
		), true
	}
	return is.lost(name, flowing(name, was, is, log)), true
}

// takesNone is the fix for a Prometheus that has nothing to send.
var takesNone = NewFix(
	"let Prometheus take in samples: see Status > Target health for targets that are down, Prometheus's log for a " +
		"full disk, " +
		"and remoteWrite.writeRelabelConfigs of the policy for a rule that drops every series",
)

// lost returns the finding, or a warning if it passed and other data was lost.
func (q queue) lost(name string, f Finding) Finding {
	if f.Status != Pass || len(q.losses) == 0 {
		return f
	}
	var what, fixes []string
	for _, l := range q.losses {
		what = append(what, fmt.Sprintf("%.0f %s", l.count, l.what))
		if !slices.Contains(fixes, l.fix) {
			fixes = append(fixes, l.fix)
		}
	}
	return Warned(
		Flow,
		About{},
		NewFix(strings.Join(fixes, "; ")),
		"%s: samples flow, but since the start %s",
		name,
		strings.Join(what, ", "),
	)
}

// RelayFlow judges the writes by the relay's report. problem is why Prometheus's own metrics
// cannot be read; empty: the program is not Prometheus.
func RelayFlow(s sidecarconfig.Status, problem string) Finding {
	var messages []string
	for _, d := range s.Destinations {
		if d.Delivery != sidecarconfig.DeliveryRelay || d.Taken == nil {
			return Skipped(Flow, About{}, "%s", cmp.Or(problem, "the sidecar does not report when AMP took a write"))
		}
		since := *d.Taken
		if since.Before(s.Started) {
			since = s.Started
		}
		age := s.Time.Sub(since)
		switch {
		case age > idleLimit && d.Taken.IsZero():
			return Failed(
				Flow,
				About{},
				noWrites,
				"%s: nothing is flowing: AMP has taken no write since the sidecar started, %s ago",
				Plain(d.Name),
				Span(age),
			)
		case age > idleLimit:
			return Failed(
				Flow,
				About{},
				noWrites,
				"%s: nothing is flowing: AMP took the last write %s ago",
				Plain(d.Name),
				Span(age),
			)
		case d.Taken.IsZero():
			return Skipped(
				Flow,
				About{},
				"%s: no write has come to the relay yet: run doctor again after the next scrape",
				Plain(d.Name),
			)
		}
		messages = append(
			messages,
			fmt.Sprintf("%s: AMP took a write through the relay %s ago", Plain(d.Name), Span(max(0, age))),
		)
	}
	if len(messages) == 0 {
		return Skipped(Flow, About{}, "the sidecar reports no destination")
	}
	return Passed(Flow, About{}, "%s", strings.Join(messages, "; "))
}

// noWrites is the fix for a program from which AMP accepts no writes.
var noWrites = NewFix(
	"see the log of the program that writes: it sends nothing, or AMP refuses it; the check of the sidecar above " +
		"shows AMP's " +
		"latest refusal",
)

// flowing judges a queue that is not stuck.
func flowing(name string, was, is queue, log Fix) Finding {
	lag := is.lag()
	switch {
	case lag > lagTolerated && was.sent > 0 && lag < was.lag():
		return Warned(Flow, About{}, log, "%s is %s behind, and catches up", name, Span(lag))
	case lag > lagTolerated:
		return Failed(Flow, About{}, log, "%s is %s behind", name, Span(lag))
	case is.failed > 0:
		return Warned(
			Flow,
			About{},
			NewFix("see Prometheus's log; it does not send refused samples again"),
			"%s is %s behind; %.0f samples were refused since the start",
			name,
			Span(lag),
			is.failed,
		)
	}
	return Passed(
		Flow,
		About{},
		"%s is %s behind, nothing refused, %.0f retried since the start",
		name,
		Span(lag),
		is.retried,
	)
}

func seconds(s float64) time.Duration {
	return (time.Duration(s * float64(time.Second))).Round(time.Second)
}
