package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/preview"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

func registerConfig(flags *pflag.FlagSet, o *preview.ConfigOptions) {
	flags.StringVarP(&o.File, "file", "f", "", "the Prometheus configuration `FILE`, gzipped or not; - is standard input")
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`")
	flags.StringVarP(&o.Namespace, "namespace", "n", "", "`NAMESPACE` of the pod")
	flags.StringVar(&o.ServiceAccount, "service-account", "", "`NAME` of the pod's service account")
	flags.StringVar(&o.Pod, "pod", "", "`NAME` of the pod, for the replica label of a grant with ha")
	flags.StringVar(
		&o.Controller,
		"controller",
		"",
		"`NAME` of the pod's StatefulSet or Deployment, for the group of a grant with ha",
	)
	flags.StringVar(
		&o.Version,
		"prometheus-version",
		"",
		"`VERSION` of the pod's Prometheus, such as 3.1.0; without it, the block has the fields that every supported version knows",
	)
	flags.StringVar(
		(*string)(&o.Delivery),
		"delivery",
		"",
		"`DELIVERY` where the policy leaves it to the pod: sigv4 (default) or relay",
	)
	flags.StringVarP(
		&o.Output,
		"output",
		"o",
		preview.Full,
		"output `FORMAT`: full for the whole configuration, block for remote_write alone, which needs no --file",
	)
}

func validateConfig(o preview.ConfigOptions) error {
	if o.File == "" && o.Output != preview.Block {
		return usage.Errorf("no configuration: name its file with -f")
	}
	for _, f := range []struct{ flag, value string }{{"policy", o.Policy}, {"namespace", o.Namespace}, {"service-account", o.ServiceAccount}} {
		if f.value == "" {
			return usage.Errorf("--%s is missing", f.flag)
		}
	}
	if o.Version != "" {
		if _, err := policy.ParseVersion(o.Version); err != nil {
			return usage.Errorf("--prometheus-version: %v", err)
		}
	}
	if err := usage.OneOf("delivery", string(o.Delivery), "", string(policy.DeliverySigV4), string(policy.DeliveryRelay)); err != nil {
		return err
	}
	if o.File == policyfile.Stdin && o.Policy == policyfile.Stdin {
		return usage.Errorf("-f and --policy cannot both be standard input")
	}
	return usage.OneOf("output", o.Output, preview.Full, preview.Block)
}

// newConfig returns `ampbridge config`, which shows the Prometheus configuration that a
// pod gets, without a cluster.
func newConfig() *cobra.Command {
	var o preview.ConfigOptions
	cmd := &cobra.Command{
		Use:   "config -f FILE --policy FILE --namespace NAMESPACE --service-account NAME",
		Short: "Show a Prometheus configuration with the block in it",
		Long: `Config prints the Prometheus configuration that a pod of the service account gets
once it has sessions: the file, with a remote_write block for every granted
destination. It needs no cluster and no AWS. On stderr it names the blocks that are
left out, the fields that this Prometheus may not know, and how samples go. Whether a
pod gets sigv4 or the relay depends on the pod: ampbridge inject shows it. A service account without
a grant ends it with status 1.`,
		Example: `  ampbridge config -f prometheus.yml --policy policy.yaml --namespace monitoring --service-account prometheus-k8s

  # What changes?
  ampbridge config -f prometheus.yml --policy policy.yaml --namespace monitoring --service-account prometheus-k8s | diff prometheus.yml -

  # From the operator's Secret.
  kubectl get secret -n monitoring prometheus-k8s -o jsonpath='{.data.prometheus\.yaml\.gz}' | base64 -d |
    ampbridge config -f - --policy policy.yaml --namespace monitoring --service-account prometheus-k8s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateConfig(o); err != nil {
				return err
			}
			return preview.Config(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	registerConfig(cmd.Flags(), &o)
	return cmd
}
