package certificates

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/certwatcher"
)

// Directory serves the certificate in the PEM files tls.crt and tls.key of a directory. Another
// program fills the directory and renews the files.
type Directory struct {
	*serving
	dir     string
	logger  *slog.Logger
	problem atomic.Pointer[error]
}

// NewDirectory returns the certificate of a directory, which may still be empty.
// It registers its metrics with the registry.
func NewDirectory(dir string, registry prometheus.Registerer, logger *slog.Logger) *Directory {
	return &Directory{serving: newServing(registry), dir: dir, logger: logger}
}

// Run waits for the files, and then watches them until the context ends.
func (d *Directory) Run(ctx context.Context) error {
	for logged := ""; ; {
		w, err := certwatcher.New(filepath.Join(d.dir, "tls.crt"), filepath.Join(d.dir, "tls.key"))
		if err == nil {
			w.RegisterCallback(func(c tls.Certificate) { d.serve(c) })
			return w.Start(ctx)
		}
		d.problem.Store(&err)
		if err.Error() != logged {
			logged = err.Error()
			d.logger.Error("waiting for the serving certificate", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(time.Second):
		}
	}
}

// Ready returns why there is no certificate yet.
func (d *Directory) Ready() error {
	if d.current.Load() != nil {
		return nil
	}
	if problem := d.problem.Load(); problem != nil {
		return fmt.Errorf("no serving certificate is loaded: %w", *problem)
	}
	return fmt.Errorf("no serving certificate is loaded yet")
}
