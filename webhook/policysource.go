package webhook

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// policyInterval is how often the policy file is read. Reading its content,
// rather than watching its name, makes the kubelet's swaps of symbolic links
// and every editor's way of saving the same thing.
const policyInterval = time.Second

// PolicySource holds the policy of a file and follows the file's changes. A
// version with mistakes does not replace the one in force.
type PolicySource struct {
	path    string
	metrics *Metrics
	logger  *slog.Logger

	mu      sync.RWMutex
	current *policy.Policy
	err     error // why the newest version is not in force
	seen    string
	// good is the newest good version of the file; nil: there has been none.
	good []byte
	// loaded wakes Keep when there is a new one.
	loaded chan struct{}
}

// NewPolicySource reads the file for the first time. It has no error: without a
// good policy [PolicySource.Err] says why, and a later version may be good.
func NewPolicySource(path string, metrics *Metrics, logger *slog.Logger) *PolicySource {
	s := &PolicySource{path: path, metrics: metrics, logger: logger, loaded: make(chan struct{}, 1)}
	s.load()
	return s
}

// Current is the policy in force; nil: there has been no good one yet.
func (s *PolicySource) Current() *policy.Policy {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.current
}

// Err says why the newest version of the file is not in force; nil: it is.
func (s *PolicySource) Err() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.err
}

// Follow loads new versions of the file until the context ends.
func (s *PolicySource) Follow(ctx context.Context) {
	ticker := time.NewTicker(policyInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.load()
		}
	}
}

// load reads the file, and does nothing more where it is as it was the last
// time, so that a mistake is reported once and not every second.
func (s *PolicySource) load() {
	data, err := os.ReadFile(s.path)
	sum := sha256.Sum256(data)
	seen := hex.EncodeToString(sum[:])
	if err != nil {
		seen = err.Error()
	}
	if seen == s.seen {
		return
	}
	s.seen = seen
	var p *policy.Policy
	if err == nil {
		p, err = policy.Parse(data)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err != nil {
		s.metrics.policyLoadErrors.Inc()
		s.metrics.policyLastSuccess.Set(0)
		s.report(err)
		return
	}
	s.current, s.good = p, data
	s.metrics.policyLastSuccess.Set(1)
	s.metrics.policyFromCopy.Set(0)
	hash := s.inForce(data)
	select {
	case s.loaded <- struct{}{}:
	default:
	}
	s.logger.Info("policy loaded", "file", s.path, "hash", hash, "cluster", p.Cluster.Name,
		"destinations", len(p.Destinations), "grants", len(p.Grants), "paused", p.Paused)
}

// inForce shows which policy is in force, by the beginning of its SHA-256.
func (s *PolicySource) inForce(data []byte) (hash string) {
	sum := sha256.Sum256(data)
	hash = hex.EncodeToString(sum[:])[:12]
	s.metrics.policyInfo.Reset()
	s.metrics.policyInfo.WithLabelValues(hash).Set(1)
	return hash
}

func (s *PolicySource) report(err error) {
	consequence := "the last good policy stays in force"
	if s.current == nil {
		consequence = "there is no policy yet, so nothing is injected"
	}
	problems := policy.Errors{{Problem: err.Error()}}
	_ = errors.As(err, &problems)
	for _, problem := range problems {
		s.logger.Error("policy refused", "file", s.path, "problem", problem.Error(), "consequence", consequence)
	}
}

// ready is nil when a policy is in force, be it the newest or not.
func (s *PolicySource) ready() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.current != nil {
		return nil
	}
	return fmt.Errorf("no policy is loaded: %w", s.err)
}
