package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// WatchPolicy watches the policy file. Metrics and log show which policy is in force. store has the
// accepted copy; nil if there is none.
func WatchPolicy(path string, store policyfile.Store, metrics *Metrics, logger *slog.Logger) *policyfile.Watcher {
	return policyfile.Watch(policyfile.Options{
		Path: path, Store: store,
		Loaded: func(p *policy.Policy, data []byte) {
			metrics.policyLastSuccess.Set(1)
			metrics.policyFromCopy.Set(0)
			hash := metrics.policyInForce(data)
			logger.Info("policy loaded", "file", path, "hash", hash, "cluster", p.Cluster.Name,
				"destinations", len(p.Destinations), "grants", len(p.Grants), "paused", p.Paused)
		},
		Refused: func(err error, inForce bool) {
			metrics.policyLoadErrors.Inc()
			metrics.policyLastSuccess.Set(0)
			consequence := "the last good policy stays in force"
			if !inForce {
				consequence = "there is no policy yet, so nothing is injected"
			}
			problems := policy.Errors{{Problem: err.Error()}}
			_ = errors.As(err, &problems)
			for _, problem := range problems {
				logger.Error("policy refused", "file", path, "problem", problem.Error(), "consequence", consequence)
			}
		},
		Restored: func(p *policy.Policy, data []byte, version string) {
			metrics.policyInForce(data)
			metrics.policyFromCopy.Set(1)
			logger.Warn("policy restored", "configMap", AcceptedConfigMap, "version", version, "cluster", p.Cluster.Name,
				"destinations", len(p.Destinations), "grants", len(p.Grants), "paused", p.Paused,
				"consequence", "the last good policy is in force until the file has no mistakes")
		},
		StoreFailed: func(err error) {
			logger.Warn("cannot update the copy of the last good policy", "error", shorten(err.Error(), maxLoggedText))
		},
	})
}

// policyInForce sets the metric of the policy in force and returns the beginning of the policy's
// SHA-256.
func (m *Metrics) policyInForce(data []byte) (hash string) {
	sum := sha256.Sum256(data)
	hash = hex.EncodeToString(sum[:])[:12]
	m.policyInfo.Reset()
	m.policyInfo.WithLabelValues(hash).Set(1)
	return hash
}

// policyReady returns nil if a policy is in force. The policy may be older than the file.
func policyReady(w *policyfile.Watcher) error {
	if w.Current() != nil {
		return nil
	}
	return fmt.Errorf("no policy is loaded: %w", w.Err())
}
