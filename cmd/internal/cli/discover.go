package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	names "k8s.io/apimachinery/pkg/util/validation"

	"github.com/ampbridge/ampbridge/cmd/internal/discover"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

func registerDiscover(flags *pflag.FlagSet, o *discover.Options) {
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	registerNamespace(flags, &o.Namespace, "", "read only the pods of this `NAMESPACE` (default: all)")
	flags.StringVar(&o.Destination, "destination", "central", "`NAME` of the destination in the grants")
	registerOutput(flags, &o.Output)
}

func validateDiscover(o discover.Options) error {
	const fix = "write the name of a destination of the policy, such as --destination central"
	switch problems := names.IsDNS1123Label(o.Destination); {
	case o.Destination == "":
		return usage.Errorf("--destination is empty: %s", fix)
	case strings.HasPrefix(o.Destination, "arn:"):
		return usage.Errorf("--destination %q is an ARN: %s", o.Destination, fix)
	case len(problems) > 0:
		return usage.Errorf("--destination %q is not a DNS label: %s", o.Destination, fix)
	}
	return nil
}

// newDiscover returns `ampbridge discover`, which finds the Prometheus pods of a cluster.
func newDiscover() *cobra.Command {
	var o discover.Options
	cmd := &cobra.Command{
		Use:   "discover",
		Short: "Find every Prometheus of the cluster, and write the grants for them",
		Long: `Discover lists every Prometheus of the cluster with its service account and the delivery
that its samples would get, or the reason why it cannot be injected. It also lists other
programs that are named by the annotation ampbridge.io/container. Below the table are
the grants to paste into a policy, and the labels that the namespaces lack. It needs no
policy and no installation. It changes nothing and does not call AWS.

Discover does not read the limits and quotas of a namespace. They may still keep the
sidecar out.`,
		Example: `  ampbridge discover
  ampbridge discover -n monitoring --destination central
  ampbridge discover -o json | jq '.workloads[] | select(.reason != "Granted")'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateDiscover(o); err != nil {
				return err
			}
			return discover.Run(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	registerDiscover(cmd.Flags(), &o)
	return cmd
}
