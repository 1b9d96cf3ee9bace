// Package status is the command `ampbridge status`: destinations, subjects, roles
// and pods of a cluster, and how they stand, in one table. It judges nothing and
// changes nothing; what is wrong with a pod is said by package audit, and who is
// trusted by the roles themselves.
//
// It needs to list namespaces, serviceaccounts, pods, limitranges and
// resourcequotas, and in ampbridge's own namespace configmaps and deployments; to
// see sidecars, get of pods/proxy. What it may not see it leaves out, and says so.
package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Options are the command's flags.
type Options struct {
	// Policy is a file; empty: the installation's ConfigMap.
	Policy     string
	Kubeconfig string
	// Namespace is ampbridge's own.
	Namespace string
	// NoAWS leaves the roles out.
	NoAWS    bool
	Watch    bool
	Interval time.Duration
	Output   string
}

// Output formats.
const (
	Text = "text"
	JSON = "json"
)

// clear puts the cursor to the top of an empty screen (ECMA-48).
const clear = "\x1b[H\x1b[2J"

// Run looks, once or again and again, and prints what it sees.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	l, err := newCollector(o, stdin)
	if err != nil {
		return err
	}
	for {
		report, err := l.look(ctx)
		if err != nil {
			if ctx.Err() != nil && o.Watch {
				return nil
			}
			return err
		}
		if err := write(stdout, report, o); err != nil || !o.Watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(o.Interval):
		}
	}
}

func write(stdout io.Writer, r Report, o Options) error {
	if o.Output == JSON {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s\n", text)
		return err
	}
	text := r.String()
	if o.Watch {
		text = clear + r.Time.Format(time.TimeOnly) + "  " + text
	}
	_, err := io.WriteString(stdout, text)
	return err
}
