package reconcile

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// policyInterval is how often the policy file is read. Its content counts, so
// that the kubelet's swaps of symbolic links and every editor's way of saving
// are the same thing.
const policyInterval = time.Second

// policySource holds the policy of a file. A version with mistakes does not
// replace the one in force.
type policySource struct {
	path    string
	logger  *slog.Logger
	metrics *metrics
	changed func()

	mu    sync.RWMutex
	last  *policy.Policy
	err   error // why the newest version is not in force
	bytes []byte
}

func (s *policySource) current() *policy.Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last
}

// ready is nil when a policy is in force, be it the newest or not.
func (s *policySource) ready() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.last != nil {
		return nil
	}
	return s.err
}

func (s *policySource) follow(ctx context.Context) {
	for ctx.Err() == nil {
		sleep(ctx, policyInterval)
		s.load()
	}
}

// load says each mistake once, and not every second.
func (s *policySource) load() {
	data, err := os.ReadFile(s.path)
	if err == nil && s.bytes != nil && bytes.Equal(data, s.bytes) {
		return
	}
	var p *policy.Policy
	if err == nil {
		s.bytes = data
		p, err = policy.Parse(data)
	} else {
		s.bytes = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.metrics.policyLoaded.Set(0)
		if s.err == nil || s.err.Error() != err.Error() {
			problems := policy.Errors{{Problem: err.Error()}}
			_ = errors.As(err, &problems)
			for _, problem := range problems {
				s.logger.Error("policy refused", "file", s.path, "problem", problem.Error(), "inForce", s.last != nil)
			}
		}
		s.err = err
		return
	}
	s.err, s.last = nil, p
	s.metrics.policyLoaded.Set(1)
	s.logger.Info("policy loaded", "file", s.path, "cluster", p.Cluster.Name, "destinations", len(p.Destinations), "grants", len(p.Grants))
	s.changed()
}
