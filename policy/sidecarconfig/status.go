package sidecarconfig

import (
	"encoding/json"
	"fmt"
	"time"
)

// Status is what a sidecar says of itself: at [StatusPath], and in [StatusFile].
// It holds no secrets.
type Status struct {
	// Time is when the status was made. Zero in the file, which is only written when
	// something has changed.
	Time    time.Time `json:"time,omitzero"`
	Started time.Time `json:"started"`
	// Error is why the configuration cannot be mirrored; empty: it can.
	Error        string              `json:"error,omitempty"`
	Config       ConfigStatus        `json:"config"`
	Destinations []DestinationStatus `json:"destinations"`
	// StartOnly: nothing reloads Prometheus, so the block reaches it when it
	// starts, or not at all.
	StartOnly bool `json:"startOnly,omitempty"`
	// StartFailed: Prometheus did not come up with the block, and no longer gets it.
	StartFailed bool `json:"startFailed,omitempty"`
	// Prometheus is what the sidecar observes of it; zero where nothing depends on it.
	Prometheus PrometheusStatus `json:"prometheus,omitzero"`
}

// PrometheusStatus is what the sidecar observes of the pod's Prometheus.
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
	// Error is why the user's file was served as it is.
	Error string `json:"error,omitempty"`
}

// DestinationStatus is the state of one destination.
type DestinationStatus struct {
	Name string `json:"name"`
	// Block: Prometheus has the block. It is in the served configuration, or was in
	// it when Prometheus last started.
	Block bool `json:"block"`
	// Served: the block is in the configuration that is served.
	Served bool `json:"served"`
	// Skipped is why the block is left out although there is a session; empty: it is not.
	Skipped string `json:"skipped,omitempty"`
	// Omitted are the fields that the block does without, with the version of
	// Prometheus that each needs.
	Omitted  []string  `json:"omitted,omitempty"`
	Obtained time.Time `json:"obtained,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	// Valid: the session can sign.
	Valid bool `json:"valid"`
	// Error is why the last attempt at a session failed; empty: it did not.
	Error string `json:"error,omitempty"`
	// GapSeconds is how long the block has been missing, up to GapSince if it
	// is missing now.
	GapSeconds float64   `json:"gapSeconds"`
	GapSince   time.Time `json:"gapSince,omitzero"`
}

// Gap returns for how long, up to a time, the block has been missing since the
// sidecar's start.
func (d DestinationStatus) Gap(at time.Time) time.Duration {
	gap := time.Duration(d.GapSeconds * float64(time.Second))
	if !d.GapSince.IsZero() && at.After(d.GapSince) {
		gap += at.Sub(d.GapSince)
	}
	return gap
}

// DecodeStatus reads a status, of this or a later form.
func DecodeStatus(text []byte) (Status, error) {
	var s Status
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read the sidecar's status: %w", err)
	}
	if s.Started.IsZero() {
		return s, fmt.Errorf("read the sidecar's status: started is missing")
	}
	return s, nil
}
