package sidecar

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"time"

	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// StatusFile is the name of the status file, which lies beside the credentials
// file and holds no secrets.
const StatusFile = "status.json"

// Status is what the status file says.
type Status struct {
	Started time.Time `json:"started"`
	// Trouble is why the configuration cannot be mirrored; empty: it can.
	Trouble      string              `json:"trouble,omitempty"`
	Config       ConfigStatus        `json:"config"`
	Destinations []DestinationStatus `json:"destinations"`
	// StartOnly: nothing reloads Prometheus, so the block reaches it when it
	// starts, or not at all.
	StartOnly bool `json:"startOnly,omitempty"`
	// StartFailed: Prometheus did not come up with the block, and no longer gets it.
	StartFailed bool `json:"startFailed,omitempty"`
	// Prometheus is what is seen of it, where something depends on that.
	Prometheus PrometheusStatus `json:"prometheus,omitzero"`
}

// PrometheusStatus is what the sidecar sees of the pod's Prometheus.
type PrometheusStatus struct {
	Listening bool `json:"listening"`
	Ready     bool `json:"ready"`
	// Version is empty while it is not known.
	Version string `json:"version,omitempty"`
}

// ConfigStatus is how the configuration was last served.
type ConfigStatus struct {
	Served time.Time `json:"served,omitzero"`
	// Result is that of the metric ampbridge_config_renders_total.
	Result       string `json:"result,omitempty"`
	SourceHash   string `json:"sourceHash,omitempty"`
	RenderedHash string `json:"renderedHash,omitempty"`
	// Trouble is why the user's file was served as it is.
	Trouble string `json:"trouble,omitempty"`
}

// DestinationStatus is how one destination stands.
type DestinationStatus struct {
	Name string `json:"name"`
	// Block tells whether Prometheus has the block: whether it is in the served
	// configuration, or was in it when Prometheus last started.
	Block bool `json:"block"`
	// Skipped is why it is not, though there is a session.
	Skipped string `json:"skipped,omitempty"`
	// Omitted are the fields that the block does without, with the version of
	// Prometheus that each needs.
	Omitted  []string  `json:"omitted,omitempty"`
	Obtained time.Time `json:"obtained,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	// Valid is as of the last change of anything in the status.
	Valid bool `json:"valid"`
	// Error is why the last attempt at a session failed; empty: it did not.
	Error string `json:"error,omitempty"`
	// GapSeconds is how long the block has been missing, up to GapSince if it
	// is missing now.
	GapSeconds float64   `json:"gapSeconds"`
	GapSince   time.Time `json:"gapSince,omitzero"`
}

func (s *server) currentStatus(now time.Time) Status {
	status := Status{
		Started: s.started, Trouble: s.lastError,
		Config: ConfigStatus{Served: s.served.at, Result: s.served.result, SourceHash: s.served.source, RenderedHash: s.served.rendered, Trouble: s.served.lastError},
	}
	status.StartOnly, status.StartFailed = s.startOnly(), s.startFailed
	status.Prometheus = PrometheusStatus{Listening: s.prometheus.listening, Ready: s.prometheus.ready}
	if version := s.prometheus.version; !version.IsZero() {
		status.Prometheus.Version = version.String()
	}
	for _, d := range s.destinations {
		status.Destinations = append(status.Destinations, DestinationStatus{
			Name: d.Name, Block: d.skipped == "" && d.out.IsZero(), Skipped: d.skipped, Omitted: fields(d.omitted),
			Obtained: d.session.Obtained, Expires: d.session.Expires, Valid: s.usable(d, now), Error: d.lastError,
			GapSeconds: d.gap.Seconds(), GapSince: d.out,
		})
	}
	return status
}

func (s *server) statusFile() string {
	return filepath.Join(filepath.Dir(s.config.Credentials), StatusFile)
}

// writeStatus writes the status file if anything in it has changed.
func (s *server) writeStatus() {
	if len(s.destinations) == 0 {
		return
	}
	s.mu.Lock()
	text, err := json.MarshalIndent(s.currentStatus(time.Now()), "", "  ")
	s.mu.Unlock()
	if err != nil || bytes.Equal(text, s.status) {
		return
	}
	if err := session.WriteFile(s.statusFile(), append(text, '\n'), 0o644); err != nil {
		s.log.Warn("the status file cannot be written", "error", err)
	}
	s.status = text
}
