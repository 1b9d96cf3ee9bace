package cli

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/status"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

func registerStatus(flags *pflag.FlagSet, o *status.Options) {
	registerInstalledPolicy(flags, &o.Policy)
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	registerNamespace(flags, &o.Subjects, "", "report only service accounts of this `NAMESPACE` (default: all)")
	registerSystemNamespace(flags, &o.Namespace, systemNamespace)
	keepOldName(flags, "ampbridge-namespace")
	flags.BoolVar(&o.NoAWS, "no-aws", false, "do not read AWS, even if there are credentials")
	flags.BoolVarP(&o.Watch, "watch", "w", false, "repeat until interrupted")
	flags.DurationVar(&o.Interval, "interval", 10*time.Second, "with --watch: the `DURATION` between two reports")
	registerOutput(flags, &o.Output)
}

func validateStatus(o status.Options) error {
	switch {
	case o.Namespace == "":
		return usage.Errorf("--system-namespace is empty")
	case o.Interval < time.Second:
		return usage.Errorf("--interval %s is too short: write 1s or more", o.Interval)
	case o.Watch && o.Policy == "-":
		return usage.Errorf("--policy - and --watch exclude each other: standard input can be read once")
	}
	return nil
}

// newStatus returns `ampbridge status`, which shows destinations, subjects, roles and
// pods in one table.
func newStatus() *cobra.Command {
	var o status.Options
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show destinations, subjects, roles and pods with their state",
		Long: `Status prints one line for each service account that may write to a destination, with its
role, whether the role trusts it, and its Prometheus pods. The policy is that of the
installation, or --policy. Status reads the cluster, the sidecars through the API server's
proxy, and AWS if there are credentials. Below the table it names the namespaces of grants
that lack the label for injection, subjects that a role trusts and no grant covers, and what
was unavailable. Everything else in which AWS differs from the policy is in ampbridge plan.
To find out what is wrong and how to fix it, use ampbridge doctor.`,
		Example: `  ampbridge status
  ampbridge status -n monitoring
  ampbridge status --watch
  ampbridge status -o json | jq '.pods[] | select(.finding != "healthy")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateStatus(o); err != nil {
				return err
			}
			return status.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	registerStatus(cmd.Flags(), &o)
	return cmd
}
