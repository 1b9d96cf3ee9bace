package check

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Metrics are the samples of one scrape, by name.
type Metrics map[string][]Sample

// Sample is one series and its value.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// of returns the value of the series with the label; ok is false if there is none.
func (m Metrics) of(name, label, value string) (v float64, ok bool) {
	for _, s := range m[name] {
		if s.Labels[label] == value {
			return s.Value, true
		}
	}
	return 0, false
}

// SidecarState judges the status that a config sidecar reports.
func SidecarState(status sidecarconfig.Status, now time.Time) Finding {
	seeLog := NewFix("see the sidecar's log (container ampbridge-config); the checks above show how STS answers a fresh token")
	switch {
	case len(status.Destinations) == 0:
		return Skipped(Sidecar, About{}, "it reports no destination")
	}
	var messages []string
	for _, d := range status.Destinations {
		switch {
		case d.Skipped != "":
			return Warned(
				Sidecar,
				About{},
				NewFix("take the remote_write to this workspace out of Prometheus's own configuration"),
				"%s: Prometheus's own configuration writes to the workspace already, so the block is left out",
				d.Name,
			)
		case !d.Valid && d.Error != "":
			return Failed(Sidecar, About{}, seeLog, "%s: there is no session (%s), so Prometheus runs without the block", d.Name, d.Error)
		case !d.Valid:
			return Failed(Sidecar, About{}, seeLog, "%s: there is no valid session, so Prometheus runs without the block", d.Name)
		case !d.Served:
			return Failed(
				Sidecar,
				About{},
				seeLog,
				"%s: there is a session, and the block is not served: the configuration cannot be edited",
				d.Name,
			)
		}
		messages = append(
			messages,
			fmt.Sprintf("%s: session valid, block served, %s without it since the start", d.Name, Span(d.Gap(cmp.Or(status.Time, now)))),
		)
	}
	return Passed(Sidecar, About{}, "%s", strings.Join(messages, "; "))
}

// lagTolerated is how far remote_write may be behind before samples queue up.
const lagTolerated = 2 * time.Minute

// FlowWindow is how long two reads of a queue must be apart to tell that it is
// stuck: a batch waits up to 5 seconds for more samples, and a new queue begins
// about as late.
const FlowWindow = 20 * time.Second

// queue is one remote_write of Prometheus, by its own metrics.
type queue struct {
	found bool
	// newest is the time of the newest sample that there is to send, sent that of
	// the newest one that was sent or given up; 0: none.
	newest, sent float64
	// attempts counts samples each time that they are sent, also those that are
	// retried or refused.
	attempts, retried, failed, pending float64
}

func (m Metrics) queue(name string) (q queue) {
	read := func(metric string) float64 {
		v, _ := m.of("prometheus_remote_storage_"+metric, "remote_name", name)
		return v
	}
	_, q.found = m.of("prometheus_remote_storage_samples_total", "remote_name", name)
	q.sent = read("queue_highest_sent_timestamp_seconds")
	q.attempts, q.retried, q.failed, q.pending = read(
		"samples_total",
	), read(
		"samples_retried_total",
	), read(
		"samples_failed_total",
	), read(
		"samples_pending",
	)
	for _, s := range m["prometheus_remote_storage_highest_timestamp_in_seconds"] {
		q.newest = max(q.newest, s.Value)
	}
	q.newest = max(q.newest, read("queue_highest_timestamp_seconds"))
	return q
}

// lag is how far the queue is behind what there is to send.
func (q queue) lag() time.Duration { return seconds(max(0, q.newest-q.sent)) }

// FlowState judges remote_write by Prometheus's own metrics, read twice with some
// time between. names are those of the blocks. It is final where a later read
// would change nothing; else read again until the reads are FlowWindow apart.
func FlowState(first, last Metrics, apart time.Duration, names []string) (f Finding, final bool) {
	worst, final := Finding{ID: Flow, Status: Pass}, true
	var messages []string
	for _, name := range names {
		one, done := queueState(name, first.queue(name), last.queue(name), apart)
		final = final && done
		// A skipped one is no better than a warning.
		if one.Status.Worse(worst.Status) && worst.Status != Skip || one.Status == Skip && worst.Status == Warn || one.Status == Fail {
			worst = one
		}
		messages = append(messages, one.Message)
	}
	if worst.Status == Pass {
		worst.Message = strings.Join(messages, "; ")
	}
	return worst, final
}

// queueState judges one queue. What is no more than unproven after the first read
// is not final.
func queueState(name string, was, is queue, apart time.Duration) (f Finding, final bool) {
	if !is.found {
		return Failed(
			Flow,
			About{},
			NewFix("let Prometheus read its configuration again (the pod's reloader, or a new pod)"),
			"Prometheus has no remote_write of the name %s: it has not applied the configuration that the sidecar serves",
			name,
		), apart >= FlowWindow
	}
	log := NewFix("see Prometheus's log for errors of remote_write: AMP throttles (429), refuses (403, 400), or does not answer")
	if is.sent > 0 && is.failed == 0 && is.retried == 0 && is.lag() <= lagTolerated {
		// AMP accepted everything at the first attempt.
		return Passed(Flow, About{}, "%s is %s behind, nothing refused, nothing retried", name, Span(is.lag())), true
	}
	if is.attempts < was.attempts || is.failed < was.failed || !was.found {
		was = queue{} // Prometheus was started again, or has read its configuration, between the reads
	}
	failed, retried := is.failed-was.failed, is.retried-was.retried
	// Whatever is pending may be an attempt that has no answer yet.
	taken := is.attempts - was.attempts - retried - failed - is.pending
	advanced := is.sent > was.sent
	switch {
	case advanced && (failed == 0 || taken > 0):
		return flowing(name, was, is, log), true
	case apart < FlowWindow:
		return Skipped(Flow, About{}, "%s: not known yet", name), false
	case failed > 0:
		return Failed(Flow, About{}, NewFix("see Prometheus's log for AMP's reason; Prometheus does not send refused samples again"),
			"%s: %.0f samples were refused within %s, and none is known to be accepted", name, failed, Span(apart)), true
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
	case is.sent == 0:
		return Skipped(
			Flow,
			About{},
			"%s: nothing was sent yet, and nothing waits to be sent: run doctor again after the next scrape",
			name,
		), true
	}
	return flowing(name, was, is, log), true
}

// flowing judges a queue that sends, or has nothing to send.
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
	return Passed(Flow, About{}, "%s is %s behind, nothing refused, %.0f retried since the start", name, Span(lag), is.retried)
}

func seconds(s float64) time.Duration {
	return (time.Duration(s * float64(time.Second))).Round(time.Second)
}
