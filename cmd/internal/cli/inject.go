package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/preview"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

func registerInject(flags *pflag.FlagSet, o *preview.InjectOptions) {
	flags.StringVarP(
		&o.File,
		"file",
		"f",
		"",
		"`FILE` with a Pod, a ServiceAccount or a workload such as a Deployment, several documents or a List of them, YAML or "+
			"JSON; - is standard input",
	)
	registerPolicy(flags, &o.Policy)
	flags.StringVar(
		&o.ServiceAccount,
		"service-account-file",
		"",
		"`FILE` with the ServiceAccount of the pods, if --file has none; its annotations have an effect",
	)
	registerNamespace(flags, &o.Namespace, "default", "`NAMESPACE` of objects that name none")
	o.NamespaceLabel = string(policy.InjectionEnabled)
	registerChoice(flags, &o.NamespaceLabel, "namespace-label", "",
		"`VALUE` of the namespace's label ampbridge.io/injection: %s, or empty for none",
		string(policy.InjectionEnabled), string(policy.InjectionAnnotated), "")
	flags.StringVar(&o.Image, "image", publishedImage(), "`IMAGE` of the config sidecar, for policies that name none")
	o.Output = preview.YAML
	registerChoice(flags, &o.Output, "output", "o", "`FORMAT`: %s; patch is the JSON patch of a single object",
		preview.YAML, preview.JSON, preview.Patch)
}

func validateInject(o preview.InjectOptions) error {
	switch {
	case o.File == "":
		return missing("file", "pod.yaml")
	case o.Policy == "":
		return missing("policy", examplePolicy)
	}
	stdin := 0
	for _, path := range []string{o.File, o.Policy, o.ServiceAccount} {
		if path == policyfile.Stdin {
			stdin++
		}
	}
	if stdin > 1 {
		return usage.Errorf("only one of -f, --policy and --service-account-file can be standard input")
	}
	return nil
}

// newInject returns `ampbridge inject`, which shows how the webhook would change objects,
// without a cluster.
func newInject() *cobra.Command {
	var o preview.InjectOptions
	cmd := &cobra.Command{
		Use:   "inject -f FILE --policy FILE",
		Short: "Show how the webhook would change a pod, a workload's pods or a service account",
		Long: `Inject prints pods and service accounts as the webhook would change them. It needs no
cluster, and prints other objects unchanged. The decision about each object, and its
reason, go to stderr. An object that the webhook would skip is printed unchanged, with
status 0.

The webhook changes the pods that a workload creates, and not the workload. For a
Deployment, StatefulSet, DaemonSet or ReplicaSet, inject shows that change in the pod
template. For a Prometheus of prometheus-operator, give it a pod that the operator made.

Inject does not know the limits and quotas of the namespace. In the cluster they bound
the sidecar's resources.`,
		Example: `  ampbridge inject -f pod.yaml --policy policy.yaml
  kubectl get pod -n monitoring prometheus-k8s-0 -o json |
    ampbridge inject -f - --policy policy.yaml -o patch

  # With the annotations of the service account.
  ampbridge inject -f pod.yaml --service-account-file sa.yaml --policy policy.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateInject(o); err != nil {
				return err
			}
			o.ImageNamed = cmd.Flags().Changed("image")
			return preview.Inject(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	registerInject(cmd.Flags(), &o)
	return cmd
}
