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
	flags.StringVarP(&o.File, "file", "f", "",
		"`FILE` with the Prometheus configuration, gzipped or not; - is standard input")
	registerPolicy(flags, &o.Policy)
	registerNamespace(flags, &o.Namespace, "", "`NAMESPACE` of the pod")
	registerServiceAccount(flags, &o.ServiceAccount, "`NAME` of the pod's service account")
	flags.StringVar(&o.Pod, "pod", "", "`NAME` of the pod, for the replica label of a grant with ha")
	flags.StringVar(
		&o.Controller,
		"controller",
		"",
		"`NAME` of the pod's StatefulSet or Deployment, for the group of a grant with ha; empty for a pod without one",
	)
	flags.StringVar(
		&o.Version,
		"prometheus-version",
		"",
		"`VERSION` of the pod's Prometheus, such as 3.1.0; without it, the block has the fields that every supported version knows",
	)
	registerChoice(flags, (*string)(&o.Delivery), "delivery", "",
		"`DELIVERY` where the policy leaves it to the pod: %s (default sigv4)",
		"", string(policy.DeliverySigV4), string(policy.DeliveryRelay))
	o.Output = preview.Full
	registerChoice(flags, &o.Output, "output", "o",
		"`FORMAT`: full is the whole configuration, block is remote_write alone, the others are snippets for other "+
			"programs; all but full need no --file: %s",
		preview.Outputs()...)
	flags.StringVar(&o.Destination, "destination", "", "with a snippet: `NAME` of the destination, if several fit")
}

func validateConfig(o preview.ConfigOptions) error {
	switch {
	case o.File == "" && o.Output == preview.Full:
		return missing("file", "prometheus.yml")
	case o.File != "" && preview.IsSnippet(o.Output):
		return usage.Errorf("-f is for -o full: -o %s is made from the policy alone", o.Output)
	case o.Destination != "" && !preview.IsSnippet(o.Output):
		return usage.Errorf("--destination is for snippets, and -o %s has the blocks of all destinations", o.Output)
	}
	for _, f := range []struct{ flag, value, example string }{
		{"policy", o.Policy, examplePolicy}, {"namespace", o.Namespace, "monitoring"}, {"service-account", o.ServiceAccount,
			"prometheus"},
	} {
		if f.value == "" {
			return missing(f.flag, f.example)
		}
	}
	if o.Version != "" {
		if _, err := policy.ParseVersion(o.Version); err != nil {
			return usage.Errorf("--prometheus-version: %v", err)
		}
	}
	if o.File == policyfile.Stdin && o.Policy == policyfile.Stdin {
		return usage.Errorf("-f and --policy cannot both be standard input")
	}
	return nil
}

// newConfig returns `ampbridge config`, which shows the Prometheus configuration that a
// pod gets, without a cluster.
func newConfig() *cobra.Command {
	var o preview.ConfigOptions
	cmd := &cobra.Command{
		Use:   "config -f FILE --policy FILE --namespace NAMESPACE --service-account NAME",
		Short: "Show a Prometheus configuration with the block in it",
		Long: `Config prints the Prometheus configuration that a pod of the service account gets once it
has sessions: the file, with a remote_write block for every granted destination. It needs
no cluster and no AWS. On stderr it names the blocks that it leaves out, the fields that
this Prometheus may not know, and the delivery of samples. The pod decides between sigv4
and relay: ampbridge inject shows its decision. If the service account has no grant,
config ends with status 1.

For teams that keep everything in Git, config also prints snippets, each for one
destination:
  prometheus-operator      a part of a Prometheus or PrometheusAgent
  prometheus-chart         values of the chart
  kube-prometheus-stack    values of the chart
  opentelemetry            a part of the collector's configuration, also for ADOT
  vmagent, alloy           a part of their configuration
  grafana                  a data source, for a destination with access: [query]
The grant needs mode: identity. With mode: relay, or --delivery relay, opentelemetry,
vmagent and alloy write to the sidecar's relay. On stderr config names what the grant
lacks. With mode: prometheus there is no snippet, because the sidecar adds the block by
itself. For Thanos Ruler and others, see docs/guides/collectors.md.`,
		Example: `  ampbridge config -f prometheus.yml --policy policy.yaml -n monitoring --service-account prometheus

  # See what changes.
  ampbridge config -f prometheus.yml --policy policy.yaml \
    -n monitoring --service-account prometheus | diff prometheus.yml -

  # Read the configuration from the operator's Secret.
  kubectl get secret -n monitoring prometheus-k8s -o jsonpath='{.data.prometheus\.yaml\.gz}' |
    base64 -d |
    ampbridge config -f - --policy policy.yaml -n monitoring --service-account prometheus-k8s

  # For Git: a data source of Grafana, and the OpenTelemetry Collector.
  ampbridge config -o grafana --policy policy.yaml -n grafana --service-account grafana
  ampbridge config -o opentelemetry --policy policy.yaml -n observability --service-account otel`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.ControllerNamed = cmd.Flags().Changed("controller")
			if err := validateConfig(o); err != nil {
				return err
			}
			return preview.Config(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	registerConfig(cmd.Flags(), &o)
	return cmd
}
