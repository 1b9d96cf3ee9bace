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

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
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

func (o *Options) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`, - for standard input (default: the installation's ConfigMap)")
	kube.RegisterFlag(flags, &o.Kubeconfig)
	flags.StringVar(&o.Namespace, "ampbridge-namespace", "ampbridge-system", "ampbridge's own `NAMESPACE`")
	flags.BoolVar(&o.NoAWS, "no-aws", false, "do not look at AWS, credentials or not")
	flags.BoolVar(&o.Watch, "watch", false, "look again and again, until interrupted")
	flags.DurationVar(&o.Interval, "interval", 10*time.Second, "with --watch: the time between two looks")
	flags.StringVarP(&o.Output, "output", "o", Text, "output `FORMAT`: text or json")
}

func (o *Options) validate() error {
	switch {
	case o.Namespace == "":
		return usage.Errorf("--ampbridge-namespace is empty")
	case o.Interval < time.Second:
		return usage.Errorf("--interval %s is too short: write 1s or more", o.Interval)
	case o.Watch && o.Policy == "-":
		return usage.Errorf("--policy - and --watch exclude each other: standard input can be read once")
	}
	return usage.OneOf("output", o.Output, Text, JSON)
}

// New is the command.
func New() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show destinations, subjects, roles and pods, and how they stand",
		Long: `Status shows, a line for each, which service accounts may write to which
destination, whether their role trusts them, and what became of their Prometheus
pods. The policy is the installation's, or --policy. It looks at the cluster, at the
sidecars through the API server's proxy, and at AWS where there are credentials;
what it could not look at it names at the end. To find out what is wrong, and how
to mend it, use ampbridge doctor.`,
		Example: `  ampbridge status
  ampbridge status --watch
  ampbridge status -o json | jq '.pods[] | select(.finding != "healthy")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

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
