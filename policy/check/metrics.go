package check

import (
	"net/url"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
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
	// counted: Prometheus is older than 2.23, and counts what was accepted, not attempts.
	counted  bool
	accepted float64
}

// queue returns the queue of a block. Prometheus 2.15 and newer give it the block's name
// and URL; older ones call it by its index and URL, and have other names of metrics. A
// block that writes to the relay may have no name in the configuration. While a pod moves
// from sigv4 to the relay it has both queues, and the relay's is the one that stays.
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
	q.retried = read("samples_retried_total", "retried_samples_total")
	q.failed = read("samples_failed_total", "failed_samples_total")
	q.pending = read("samples_pending", "pending_samples")
	q.attempts = read("samples_total")
	if q.counted = len(m[prefix+"succeeded_samples_total"]) > 0; q.counted {
		q.accepted = read("succeeded_samples_total")
		q.attempts = q.accepted + q.retried + q.failed
	}
	for _, s := range m[prefix+"highest_timestamp_in_seconds"] {
		q.newest = max(q.newest, s.Value)
	}
	q.newest = max(q.newest, read("queue_highest_timestamp_seconds"))
	return q
}

// relays reports whether the labels are those of the block's queue to the pod's relay.
func relays(labels map[string]string, b policy.Block) bool {
	at := labels["url"]
	if at == "" {
		_, at, _ = strings.Cut(labels["queue"], ":") // 0:http://…
	}
	u, err := url.Parse(at)
	return err == nil && u.Hostname() == "127.0.0.1" && u.Path == b.RelayPath()
}

// same reports whether two sets of labels agree in these.
func same(a, b map[string]string, names ...string) bool {
	for _, name := range names {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}

// lag is how far the queue is behind what there is to send.
func (q queue) lag() time.Duration { return seconds(max(0, q.newest-q.sent)) }

// FlowState judges remote_write by Prometheus's own metrics, read twice with some
// time between. It is final where a later read
// would change nothing; else read again until the reads are FlowWindow apart.
func FlowState(first, last Metrics, apart time.Duration, blocks []policy.Block) (f Finding, final bool) {
	worst, final := Finding{ID: Flow, Status: Pass}, true
	var messages []string
	for _, b := range blocks {
		one, done := queueState(b.Name, first.queue(b), last.queue(b), apart)
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
	if is.counted {
		taken = is.accepted - was.accepted
	}
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
