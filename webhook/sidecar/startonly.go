package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// In a pod whose Prometheus reads its configuration only when it starts,
// Prometheus has to call STS itself, and ends, or hangs, where STS does not
// answer. So what is served is what the next start is to read: the block
// exactly while STS has just answered the sidecar, and none once a start with
// it has failed.

const (
	// startWait is firstWait for these pods, which have one chance only.
	startWait = 10 * time.Second
	// proofEvery is how often STS is asked while Prometheus runs, and
	// proofEveryStarting until it does; proofLife is how long an answer counts.
	proofEvery, proofEveryStarting = time.Minute, 5 * time.Second
	proofLife                      = 100 * time.Second
	// proofSeconds is the shortest session that STS gives: nobody uses it.
	proofSeconds = 900

	// failedStartFile remembers, beside the credentials file and over restarts
	// of the sidecar, that Prometheus did not come up with the block.
	failedStartFile = "start-failed"
)

func (s *server) startOnly() bool { return s.config.Reload == sidecarconfig.StartOnly }

// prove keeps asking STS for sessions of d, which are used for nothing else.
func (s *server) prove(ctx context.Context, d *destination) {
	for failures := 0; ctx.Err() == nil; {
		next, err := s.obtain(ctx, d)
		wait := proofEveryStarting
		if s.prometheusNow().ready {
			wait = proofEvery
		}
		if err == nil {
			failures = 0
		} else {
			failures++
			wait = min(wait, session.Pause(failures, session.Session{}))
		}
		select {
		case s.results <- result{d, next, err}:
		case <-ctx.Done():
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.changed: // Prometheus has ended, or started
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// proven reports whether Prometheus, if it starts now, gets a session for d. The
// caller holds mu.
func (s *server) proven(d *destination, now time.Time) bool {
	return !s.startFailed && d.lastError == "" && d.session.Obtained.After(s.prometheus.ended) && now.Sub(d.session.Obtained) < proofLife
}

// profiles writes the config file by which Prometheus's SDK gets sessions.
func (s *server) profiles() error {
	var profiles []session.Profile
	for _, d := range s.destinations {
		profiles = append(profiles, session.Profile{Name: d.profile(), Region: d.Region, Role: d.Role, AssumeRole: d.AssumeRole})
	}
	return session.WriteProfiles(s.config.Credentials, profiles, s.sessions)
}

// ended notes the end of a Prometheus that was last seen so. The caller holds mu.
func (s *server) ended(last prometheusState) {
	s.loaded = nil
	if !s.startOnly() || last.ready || !s.offered || s.startFailed {
		return
	}
	s.startFailed = true
	s.log.Error(
		"Prometheus ended before it was ready, with the block in its configuration: from now on it gets its own, until the pod is replaced",
	)
	if err := session.WriteFile(s.failedStart(), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o644); err != nil {
		s.log.Warn("the failed start cannot be remembered", "error", err)
	}
}

func (s *server) failedStart() string {
	return filepath.Join(filepath.Dir(s.config.Credentials), failedStartFile)
}

// recall restores what an earlier run of the sidecar knew.
func (s *server) recall() {
	_, err := os.Stat(s.failedStart())
	s.startFailed = err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("the memory of a failed start cannot be read", "error", err)
	}
	// What Prometheus read may have had the block in it.
	s.offered = mirror.Served(s.config.Target)
	text, err := os.ReadFile(s.statusFile())
	if err != nil {
		return
	}
	last, err := sidecarconfig.DecodeStatus(text)
	if err != nil {
		return
	}
	for _, d := range last.Destinations {
		if d.Block {
			s.loaded = append(s.loaded, d.Name)
		}
	}
}
