// Package status shows the destinations, subjects, roles and pods of a cluster with
// their state, in one table. It decides nothing and changes nothing: package
// webhook/audit judges pods, and the trust documents name the trusted subjects.
//
// It needs the rights to list namespaces, serviceaccounts, pods, limitranges and
// resourcequotas, to list configmaps and deployments in ampbridge's own namespace, and
// to get pods/proxy for sidecars. It reports what it cannot read as unavailable.
package status

import (
	"context"
	"io"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
)

// Options configures [Run].
type Options struct {
	// Policy is a file; if empty, the ConfigMap of the installation.
	Policy     string
	Kubeconfig string
	Overrides  kube.Overrides
	// Subjects is the namespace of the service accounts to report; empty means all namespaces.
	Subjects string
	// Namespace is ampbridge's own namespace.
	Namespace string
	// NoAWS skips reading the roles.
	NoAWS    bool
	Watch    bool
	Interval time.Duration
	Output   string
}

// Output formats.
const (
	Text = output.Text
	JSON = output.JSON
	YAML = output.YAML
)

// clear moves the cursor to the top of an empty screen (ECMA-48).
const clear = "\x1b[H\x1b[2J"

// Run prints a report. With Watch it repeats that until the context ends.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	c, err := newCollector(o, stdin)
	if err != nil {
		return err
	}
	for {
		report, err := c.collect(ctx)
		if err != nil {
			if ctx.Err() != nil && o.Watch {
				return nil
			}
			return err
		}
		if err := writeReport(stdout, report, o); err != nil || !o.Watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.Interval):
		}
	}
}

func writeReport(stdout io.Writer, r Report, o Options) error {
	if o.Output != Text {
		if o.Watch && o.Output == YAML {
			if _, err := io.WriteString(stdout, "---\n"); err != nil {
				return err
			}
		}
		return output.Write(stdout, o.Output, r)
	}
	text := r.String()
	if o.Watch {
		text = clear + r.Time.Format(time.TimeOnly) + "  " + text
	}
	_, err := io.WriteString(stdout, text)
	return err
}
