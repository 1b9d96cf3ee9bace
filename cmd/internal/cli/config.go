package cli

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/preview"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

func registerConfig(flags *pflag.FlagSet, o *preview.ConfigOptions) {
	flags.StringVarP(&o.File, "file", "f", "", "the Prometheus configuration `FILE`, gzipped or not; - is standard input")
	registerPolicy(flags, &o.Policy)
	registerNamespace(flags, &o.Namespace, "", "`NAMESPACE` of the pod")
	registerServiceAccount(flags, &o.ServiceAccount, "`NAME` of the pod's service account")
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
		"output `FORMAT`: full for the whole configuration, block for remote_write alone, or a snippet for another program; all "+
			"but full need no --file: "+strings.Join(preview.Outputs(), ", "),
	)
	flags.StringVar(&o.Destination, "destination", "", "with a snippet: the `NAME` of the destination, if several fit")
}

func validateConfig(o preview.ConfigOptions) error {
	if err := usage.OneOf("output", o.Output, preview.Outputs()...); err != nil {
		return err
	}
	switch {
	case o.File == "" && o.Output == preview.Full:
		return usage.Errorf("no configuration: name its file with -f")
	case o.File != "" && preview.IsSnippet(o.Output):
		return usage.Errorf("-f is for -o full: -o %s is made from the policy alone", o.Output)
	case o.Destination != "" && !preview.IsSnippet(o.Output):
		return usage.Errorf("--destination is for snippets, and -o %s has the blocks of all destinations", o.Output)
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
	return nil
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
a grant ends it with status 1.

For people who keep everything in Git it also prints snippets, each for one
destination: prometheus-operator (a part of a Prometheus or PrometheusAgent),
prometheus-chart and kube-prometheus-stack (values of the charts), opentelemetry (also
for ADOT), vmagent and alloy write; grafana (a provisioned data source) queries, and
needs a destination with access: [query]. The pods get their identity by mode identity
of the grant; with mode relay, or --delivery relay, opentelemetry, vmagent and alloy
write to the sidecar's relay. On stderr it says what the grant lacks.`,
		Example: `  ampbridge config -f prometheus.yml --policy policy.yaml --namespace monitoring --service-account prometheus-k8s

  # What changes?
  ampbridge config -f prometheus.yml --policy policy.yaml --namespace monitoring --service-account prometheus-k8s | diff prometheus.yml -

  # From the operator's Secret.
  kubectl get secret -n monitoring prometheus-k8s -o jsonpath='{.data.prometheus\.yaml\.gz}' | base64 -d |
    ampbridge config -f - --policy policy.yaml --namespace monitoring --service-account prometheus-k8s

  # For Git: a data source of Grafana, and the OpenTelemetry Collector.
  ampbridge config -o grafana --policy policy.yaml --namespace grafana --service-account grafana
  ampbridge config -o opentelemetry --policy policy.yaml --namespace observability --service-account otel-collector`,
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
