package sidecar

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// currentStatus returns the status. The caller holds mu.
func (s *server) currentStatus(now time.Time) sidecarconfig.Status {
	status := sidecarconfig.Status{
		Started: s.started, Sidecar: s.version, Error: s.lastError, Destinations: []sidecarconfig.DestinationStatus{},
		Config: sidecarconfig.ConfigStatus{
			Served:       s.served.at,
			Result:       s.served.result,
			SourceHash:   s.served.source,
			RenderedHash: s.served.rendered,
			Error:        s.served.lastError,
		},
	}
	if s.observes() {
		status.Prometheus = sidecarconfig.PrometheusStatus{
			LastReload: s.prometheus.lastReload, ReloadFailed: s.prometheus.reloadFailed, Error: s.prometheus.problem,
		}
	}
	for _, d := range s.destinations {
		current := d.session()
		own := sidecarconfig.DestinationStatus{
			Name:       d.Name,
			Delivery:   d.delivery,
			Moved:      d.reason,
			NotTaken:   s.notTaken(d, now),
			Block:      d.skipped == "" && d.out.IsZero(),
			Served:     slices.Contains(s.served.destinations, d.Name),
			Skipped:    d.skipped,
			Omitted:    fields(d.omitted),
			Obtained:   current.Obtained,
			Expires:    current.Expires,
			Valid:      current.Valid(now),
			Error:      d.lastError,
			GapSeconds: d.gap.Seconds(),
			GapSince:   d.out,
		}
		if s.relay != nil {
			failure := s.relay.LastFailure(d.Name)
			own.Relay = sidecarconfig.RelayFailure{At: failure.At, Status: failure.Status, Error: failure.Name}
		}
		status.Destinations = append(status.Destinations, own)
	}
	return status
}

func (s *server) statusFile() string {
	return filepath.Join(filepath.Dir(s.config.Credentials), sidecarconfig.StatusFile)
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
		s.log.Warn("cannot write the status file", "error", err)
	}
	s.status = text
}

// serveStatus answers with the current status.
func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	now := time.Now()
	s.mu.Lock()
	status := s.currentStatus(now)
	s.mu.Unlock()
	status.Time = now
	for i := range status.Destinations {
		if s.relay != nil {
			taken := s.relay.LastTaken(status.Destinations[i].Name)
			status.Destinations[i].Taken = &taken
		}
	}
	text, err := json.MarshalIndent(status, "", "  ")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // an error means that the client disconnected
}
