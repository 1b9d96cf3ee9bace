package sidecarconfig

import (
	"encoding/json"
	"fmt"
	"time"
)

// Status is what a sidecar reports, at [StatusPath] and in [StatusFile].
// It holds no secrets.
type Status struct {
	// Time is when the status was made. It is zero in the file, which is written only when
	// something has changed.
	Time    time.Time `json:"time,omitzero"`
	Started time.Time `json:"started"`
	// Sidecar is the version of the sidecar's program; empty if it is older than the relay.
	Sidecar string `json:"sidecar,omitempty"`
	// Error is why the configuration cannot be mirrored; empty if it is mirrored.
	Error        string              `json:"error,omitempty"`
	Config       ConfigStatus        `json:"config"`
	Destinations []DestinationStatus `json:"destinations"`
	// Prometheus is what the sidecar reads from Prometheus's own metrics; zero if no
	// destination has sigv4.
	Prometheus PrometheusStatus `json:"prometheus,omitzero"`
}

// PrometheusStatus is what the sidecar reads from Prometheus's own metrics.
type PrometheusStatus struct {
	// LastReload is when Prometheus last loaded a configuration; zero if it has not yet.
	LastReload time.Time `json:"lastReload,omitzero"`
	// ReloadFailed is true if the latest attempt to load a configuration failed. The earlier
	// configuration stays then.
	ReloadFailed bool `json:"reloadFailed,omitempty"`
	// Error is why the metrics cannot be read; empty if they can.
	Error string `json:"error,omitempty"`
}

// ConfigStatus is how the configuration was last served.
type ConfigStatus struct {
	Served time.Time `json:"served,omitzero"`
	// Result is the result label of the metric ampbridge_config_renders_total.
	Result       string `json:"result,omitempty"`
	SourceHash   string `json:"sourceHash,omitempty"`
	RenderedHash string `json:"renderedHash,omitempty"`
	// Error is why the user's file was served unchanged; empty if there was no error.
	Error string `json:"error,omitempty"`
}

// DestinationStatus is the state of one destination.
type DestinationStatus struct {
	Name string `json:"name"`
	// Delivery is the current delivery; empty if the sidecar is older than the relay.
	Delivery Delivery `json:"delivery,omitempty"`
	// Moved is why a destination with sigv4 from the webhook now uses the relay; empty if it
	// was not moved.
	Moved string `json:"moved,omitempty"`
	// NotTaken is true if Prometheus has not loaded the latest session, and cannot be moved to the
	// relay. Its writes will fail when its current session ends.
	NotTaken bool `json:"notTaken,omitempty"`
	// Relay is the latest write that AMP refused; zero if there was none.
	Relay RelayFailure `json:"relay,omitzero"`
	// Taken is when AMP last accepted a write through the relay, and zero if it accepted none.
	// It is nil in the file, and if the sidecar is older than the field.
	Taken *time.Time `json:"taken,omitempty"`
	// Block is true if Prometheus has the block: it is in the served configuration, or was in
	// it when Prometheus last started.
	Block bool `json:"block"`
	// Served is true if the block is in the configuration that is served.
	Served bool `json:"served"`
	// Skipped is why the block is missing although there is a session; empty if it is not missing.
	Skipped string `json:"skipped,omitempty"`
	// Omitted are the fields that were removed from the block, each with the version of
	// Prometheus that it needs.
	Omitted  []string  `json:"omitted,omitempty"`
	Obtained time.Time `json:"obtained,omitzero"`
	Expires  time.Time `json:"expires,omitzero"`
	// Valid is true if the session can sign.
	Valid bool `json:"valid"`
	// Error is why the last attempt to get a session failed; empty if it succeeded.
	Error string `json:"error,omitempty"`
	// GapSeconds is how long the block has been missing, without the current gap, which
	// began at GapSince.
	GapSeconds float64   `json:"gapSeconds"`
	GapSince   time.Time `json:"gapSince,omitzero"`
}

// Delivery is a delivery of the policy, or the move from one to the other.
type Delivery string

// The values of [DestinationStatus.Delivery].
const (
	DeliverySigV4 Delivery = "sigv4"
	DeliveryRelay Delivery = "relay"
	// DeliveryMoving: Prometheus has both blocks until the one with sigv4 has sent
	// its whole queue.
	DeliveryMoving Delivery = "moving"
)

// RelayFailure is the latest write that AMP did not accept.
type RelayFailure struct {
	At time.Time `json:"at,omitzero"`
	// Status is AMP's HTTP status; 0 if AMP could not be reached.
	Status int `json:"status,omitempty"`
	// Error is AMP's name for the error.
	Error string `json:"error,omitempty"`
}

// Gap returns how long, until that time, the block has been missing since the
// sidecar's start.
func (d DestinationStatus) Gap(at time.Time) time.Duration {
	gap := time.Duration(d.GapSeconds * float64(time.Second))
	if !d.GapSince.IsZero() && at.After(d.GapSince) {
		gap += at.Sub(d.GapSince)
	}
	return gap
}

// DecodeStatus reads a status of this or a later version.
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
