package doctor

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Metrics are the samples of one scrape: name → series.
type Metrics map[string][]Sample

// Sample is one series and its value.
type Sample struct {
	Labels map[string]string
	Value  float64
}

// ReadMetrics reads Prometheus's text format; lines that it cannot read are left
// out (https://prometheus.io/docs/instrumenting/exposition_formats/).
func ReadMetrics(text string) Metrics {
	m := Metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		end := strings.LastIndexByte(line, '}') + 1
		head, rest := line[:end], line[end:]
		if end == 0 {
			head, rest, _ = strings.Cut(line, " ")
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		value, err := strconv.ParseFloat(fields[0], 64)
		if err != nil {
			continue
		}
		name, labels, _ := strings.Cut(head, "{")
		m[name] = append(m[name], Sample{readLabels(strings.TrimSuffix(labels, "}")), value})
	}
	return m
}

// readLabels reads name="value",…; values are Go strings in their quoting.
func readLabels(text string) map[string]string {
	labels := map[string]string{}
	for text != "" {
		name, rest, found := strings.Cut(text, "=")
		quoted, err := strconv.QuotedPrefix(rest)
		if !found || err != nil {
			return labels
		}
		value, err := strconv.Unquote(quoted)
		if err != nil {
			return labels
		}
		labels[strings.Trim(name, ", ")] = value
		text = strings.TrimPrefix(rest[len(quoted):], ",")
	}
	return labels
}

// of is the value of a series with the label; ok is false where there is none.
func (m Metrics) of(name, label, value string) (v float64, ok bool) {
	for _, s := range m[name] {
		if s.Labels[label] == value {
			return s.Value, true
		}
	}
	return 0, false
}

// SidecarSeen is what a config sidecar says of itself.
type SidecarSeen struct {
	// StartFailed: a Prometheus that nothing reloads did not come up with the block.
	StartFailed  bool
	Destinations []DestinationSeen
}

// DestinationSeen is how one destination stands with the sidecar.
type DestinationSeen struct {
	Name string
	// Valid: there is a session that can sign. Served: the block is in.
	Valid, Served bool
	// OwnEntry: the user's own remote_write writes to the workspace already.
	OwnEntry bool
	// Error is why there is no session, where the sidecar tells.
	Error string
	// Gap is how long the block has been missing since the start.
	Gap time.Duration
}

// SidecarMetrics reads the sidecar's metrics.
func SidecarMetrics(m Metrics) SidecarSeen {
	var seen SidecarSeen
	for _, s := range m["ampbridge_start_failed"] {
		seen.StartFailed = s.Value == 1
	}
	for _, s := range m["ampbridge_session_valid"] {
		d := DestinationSeen{Name: s.Labels["destination"], Valid: s.Value == 1}
		served, _ := m.of("ampbridge_block_served", "destination", d.Name)
		own, _ := m.of("ampbridge_block_own_entry", "destination", d.Name)
		gap, _ := m.of("ampbridge_gap_seconds", "destination", d.Name)
		d.Served, d.OwnEntry, d.Gap = served == 1, own == 1, seconds(gap)
		seen.Destinations = append(seen.Destinations, d)
	}
	return seen
}

// SidecarState judges it.
func SidecarState(seen SidecarSeen) Finding {
	look := Do("see the sidecar's log (container ampbridge-config); the links above tell what STS says to a token of today")
	switch {
	case len(seen.Destinations) == 0:
		return Unseen(Sidecar, About{}, "it tells of no destination")
	case seen.StartFailed:
		return Fails(Sidecar, About{}, Do("create the pod anew: nothing reloads this Prometheus, and it did not start with the block"), "a start with the block failed, so the pod runs without it")
	}
	var says []string
	for _, d := range seen.Destinations {
		switch {
		case d.OwnEntry:
			return Doubts(Sidecar, About{}, Do("take the remote_write to this workspace out of Prometheus's own configuration"), "%s: Prometheus's own configuration writes to the workspace already, so the block is left out", d.Name)
		case !d.Valid && d.Error != "":
			return Fails(Sidecar, About{}, look, "%s: there is no session (%s), so Prometheus runs without the block", d.Name, d.Error)
		case !d.Valid:
			return Fails(Sidecar, About{}, look, "%s: there is no valid session, so Prometheus runs without the block", d.Name)
		case !d.Served:
			return Fails(Sidecar, About{}, look, "%s: there is a session, and the block is not served: the configuration cannot be edited", d.Name)
		}
		says = append(says, fmt.Sprintf("%s: session valid, block served, %s without it since the start", d.Name, Span(d.Gap)))
	}
	return Holds(Sidecar, About{}, "%s", strings.Join(says, "; "))
}

// lagTolerated is how far remote_write may be behind before samples queue up.
const lagTolerated = 2 * time.Minute

// FlowState judges remote_write by Prometheus's own metrics. names are those of
// the blocks.
func FlowState(m Metrics, names []string) Finding {
	newest := 0.0
	for _, s := range m["prometheus_remote_storage_highest_timestamp_in_seconds"] {
		newest = max(newest, s.Value)
	}
	var says []string
	for _, name := range names {
		sent, found := m.of("prometheus_remote_storage_queue_highest_sent_timestamp_seconds", "remote_name", name)
		if !found {
			return Fails(Flow, About{}, Do("let Prometheus read its configuration again (the pod's reloader, or a new pod)"), "Prometheus has no remote_write of the name %s: it has not applied the configuration that the sidecar serves", name)
		}
		if failed, _ := m.of("prometheus_remote_storage_samples_failed_total", "remote_name", name); failed > 0 {
			return Doubts(Flow, About{}, Do("see Prometheus's log: what AMP refused is not sent again"), "%s: %.0f samples were refused since the start", name, failed)
		}
		lag := seconds(max(0, newest-sent))
		if sent == 0 {
			says = append(says, name+": nothing sent yet")
			continue
		}
		if lag > lagTolerated {
			return Fails(Flow, About{}, Do("see Prometheus's log for errors of remote_write: AMP throttles (429), refuses (403), or does not answer"), "%s is %s behind", name, Span(lag))
		}
		says = append(says, fmt.Sprintf("%s is %s behind, nothing refused", name, Span(lag)))
	}
	return Holds(Flow, About{}, "%s", strings.Join(says, "; "))
}

func seconds(s float64) time.Duration {
	return (time.Duration(s * float64(time.Second))).Round(time.Second)
}
