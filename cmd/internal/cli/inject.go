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
		"`FILE` with a Pod or ServiceAccount, several documents or a List of them, YAML or JSON; - is standard input",
	)
	registerPolicy(flags, &o.Policy)
	flags.StringVar(
		&o.ServiceAccount,
		"service-account-file",
		"",
		"`FILE` with the ServiceAccount of the pods, if --file has none; its annotations count",
	)
	registerNamespace(flags, &o.Namespace, "default", "`NAMESPACE` of objects that name none")
	flags.StringVar(
		&o.NamespaceLabel,
		"namespace-label",
		string(policy.InjectionEnabled),
		"`VALUE` of the namespace's label ampbridge.io/injection: enabled, annotated, or empty for none",
	)
	flags.StringVar(&o.Image, "image", publishedImage(), "`IMAGE` of the config sidecar, for policies that name none")
	flags.StringVarP(&o.Output, "output", "o", preview.YAML, "output `FORMAT`: yaml, json, or patch for the JSON patch of the one object")
}

func validateInject(o preview.InjectOptions) error {
	switch {
	case o.File == "":
		return usage.Errorf("no object: name its file with -f")
	case o.Policy == "":
		return usage.Errorf("no policy: name its file with --policy")
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
	if err := usage.OneOf(
		"namespace-label",
		o.NamespaceLabel,
		string(policy.InjectionEnabled),
		string(policy.InjectionAnnotated),
		"",
	); err != nil {
		return err
	}
	return usage.OneOf("output", o.Output, preview.YAML, preview.JSON, preview.Patch)
}

// newInject returns `ampbridge inject`, which shows what the webhook would make of
// objects, without a cluster.
func newInject() *cobra.Command {
	var o preview.InjectOptions
	cmd := &cobra.Command{
		Use:   "inject -f FILE --policy FILE",
		Short: "Show what the webhook would make of a pod or service account",
		Long: `Inject prints pods and service accounts as the webhook would make them, without a
cluster; everything else passes through as it is. The decision about each, and its
reason, go to stderr. An object that is skipped is printed unchanged, with status 0.

The limits and quotas of the namespace are not known here: in the cluster they
bound the sidecar's resources.`,
		Example: `  ampbridge inject -f pod.yaml --policy policy.yaml
  kubectl get pod -n monitoring prometheus-k8s-0 -o json | ampbridge inject -f - --policy policy.yaml -o patch

  # With the service account, whose annotations count.
  ampbridge inject -f pod.yaml --service-account-file sa.yaml --policy policy.yaml --namespace-label annotated`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateInject(o); err != nil {
				return err
			}
			return preview.Inject(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	registerInject(cmd.Flags(), &o)
	return cmd
}
