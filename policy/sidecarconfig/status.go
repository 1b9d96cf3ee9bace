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
	// Sidecar is the version of the sidecar's program; empty: it is older than the relay.
	Sidecar string `json:"sidecar,omitempty"`
	// Error is why the configuration cannot be mirrored; empty: it can.
	Error        string              `json:"error,omitempty"`
	Config       ConfigStatus        `json:"config"`
	Destinations []DestinationStatus `json:"destinations"`
	// Prometheus is what the sidecar reads of Prometheus's own metrics; zero where no
	// destination has sigv4.
	Prometheus PrometheusStatus `json:"prometheus,omitzero"`
}

// PrometheusStatus is what the sidecar reads of Prometheus's own metrics.
type PrometheusStatus struct {
	// LastReload is when it last loaded a configuration; zero: it has not yet.
	LastReload time.Time `json:"lastReload,omitzero"`
	// ReloadFailed: the latest attempt to load one failed, and the one before stays.
	ReloadFailed bool `json:"reloadFailed,omitempty"`
	// Error is why the metrics cannot be read; empty: they can.
	Error string `json:"error,omitempty"`
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
	// Delivery is how the samples go now; empty: the sidecar is older than the relay.
	Delivery Delivery `json:"delivery,omitempty"`
	// Moved is why a destination that the webhook gave sigv4 has the relay; empty: it
	// does not.
	Moved string `json:"moved,omitempty"`
	// NotTaken: Prometheus has not taken the latest session, and cannot be moved to the
	// relay either. Its writes fail when the session that it has ends.
	NotTaken bool `json:"notTaken,omitempty"`
	// Relay is what AMP last refused; zero: nothing.
	Relay RelayFailure `json:"relay,omitzero"`
	// Taken is when AMP last took a write through the relay, zero if it took none; nil: not
	// known, because the sidecar is older, or in the file.
	Taken *time.Time `json:"taken,omitempty"`
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

// Delivery is a delivery of the policy's, or a move between the two.
type Delivery string

// The values of [DestinationStatus.Delivery].
const (
	DeliverySigV4 Delivery = "sigv4"
	DeliveryRelay Delivery = "relay"
	// DeliveryMoving: Prometheus has both blocks, until the one with sigv4 has sent
	// all that it had.
	DeliveryMoving Delivery = "moving"
)

// RelayFailure is the latest write that AMP did not take.
type RelayFailure struct {
	At time.Time `json:"at,omitzero"`
	// Status is AMP's HTTP status; 0: AMP could not be reached.
	Status int `json:"status,omitempty"`
	// Error is AMP's name for the error.
	Error string `json:"error,omitempty"`
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
