package reconcile

import (
	"errors"
	"log/slog"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// watchPolicy watches the policy file, and reports in metrics and log which policy is in
// force. It calls changed after a new version came into force.
func watchPolicy(path string, metrics *metrics, logger *slog.Logger, changed func()) *policyfile.Watcher {
	refused := "" // the last logged problem
	return policyfile.Watch(policyfile.Options{
		Path: path,
		Loaded: func(p *policy.Policy, _ []byte) {
			refused = ""
			metrics.policyLoaded.Set(1)
			logger.Info(
				"policy loaded",
				"file",
				path,
				"cluster",
				p.Cluster.Name,
				"destinations",
				len(p.Destinations),
				"grants",
				len(p.Grants),
			)
			changed()
		},
		Refused: func(err error, inForce bool) {
			metrics.policyLoaded.Set(0)
			if err.Error() == refused {
				return
			}
			refused = err.Error()
			problems := policy.Errors{{Problem: err.Error()}}
			_ = errors.As(err, &problems)
			for _, problem := range problems {
				logger.Error("policy refused", "file", path, "problem", problem.Error(), "inForce", inForce)
			}
		},
	})
}

// policyReady returns nil if a policy is in force. The policy may be older than the file.
func policyReady(w *policyfile.Watcher) error {
	if w.Current() != nil {
		return nil
	}
	return w.Err()
}
