package cli

import (
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/bootstrap"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	policybootstrap "github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

func registerBootstrap(flags *pflag.FlagSet, o *bootstrap.Options) {
	registerPolicy(flags, &o.Policy)
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	registerSystemNamespace(flags, &o.Namespace, systemNamespace)
	flags.StringVar(&o.ServiceAccount, "sync-service-account", "ampbridge-sync", "`NAME` of sync's service account")
	flags.StringVar(&o.Account, "account", "", "`ID` of the AWS account to work on, if the policy has several")
	flags.StringVar(&o.Home, "home", "",
		"`ID` of the account in which sync assumes a role with its own token, if it does not follow from trust.accounts")
	flags.StringArrayVar(&o.Aliases, "alias", nil,
		"alias of a new workspace, as `DESTINATION=ALIAS` (default: the destination's name); may be repeated")
	flags.StringArrayVar(&o.Adopt, "adopt-workspace", nil,
		"tag the workspace of this `DESTINATION`, which has no owner, as the cluster's own; may be repeated")
	flags.StringArrayVar(&o.Tags, "tag", nil, "tag for everything that is made, as `KEY=VALUE`; may be repeated")
	flags.BoolVar(&o.PodIdentity, "pod-identity", false, "let EKS Pod Identity give sync its role, in the account in which sync begins")
	flags.BoolVar(&o.PruneTrust, "prune-trust", false,
		"remove statements that others added from the trust document of sync's role")
	flags.IntVar(&o.WorkspaceQuota, "workspace-quota", policybootstrap.WorkspaceQuota,
		"the account's quota of AMP workspaces in a region, as a `NUMBER`, if it was raised")
	o.Output = bootstrap.Text
	registerChoice(flags, &o.Output, "output", "o",
		"`FORMAT`: text, json and yaml show what --apply would do; terraform and aws-cli write it for others to apply",
		bootstrap.Text, bootstrap.JSON, bootstrap.YAML, bootstrap.Terraform, bootstrap.AWSCLI)
	flags.BoolVar(&o.Apply, "apply", false, "show the changes, ask, and make them")
	grouped(flags, "Flags for --apply", func(flags *pflag.FlagSet) {
		flags.BoolVar(&o.Yes, "yes", false, "do not ask")
		flags.StringVar(&o.WritePolicy, "write-policy", "", "write the policy with the ARNs of the new workspaces to `FILE`")
	})
	grouped(flags, "Flags for -o terraform and -o aws-cli", func(flags *pflag.FlagSet) {
		flags.BoolVar(&o.Import, "import", false, "terraform: ask AWS, and write import blocks for what bootstrap made there")
		flags.StringVar(&o.File, "file", "", "terraform: write to `FILE`, and keep every workspace that it declares already")
		flags.StringVar(&o.Earlier, "earlier", "",
			"terraform, on standard output: the `FILE` that was written before, or "+bootstrap.NoEarlier+" the first time")
		flags.BoolVar(&o.ExistingProvider, "existing-provider", false, "the cluster's OIDC provider is managed elsewhere")
		flags.BoolVar(&o.ExistingBoundary, "existing-boundary", false, "the permissions boundary is managed elsewhere")
	})
}

func validateBootstrap(o bootstrap.Options) error {
	switch {
	case o.Policy == "":
		return missing("policy", examplePolicy)
	case o.Apply && o.Output != bootstrap.Text:
		return usage.Errorf("--apply and -o %s exclude each other", o.Output)
	case o.Yes && !o.Apply:
		return usage.Errorf("--yes is for --apply")
	case o.WritePolicy != "" && !o.Apply:
		return usage.Errorf("--write-policy is for --apply: before it there are no ARNs")
	case o.Apply && !o.Yes && o.Policy == policyfile.Stdin:
		return usage.Errorf("--policy - leaves no standard input for the answer: add --yes")
	case o.Import && o.Output != bootstrap.Terraform:
		return usage.Errorf("--import is for -o terraform")
	case (o.File != "" || o.Earlier != "") && o.Output != bootstrap.Terraform:
		return usage.Errorf("--file and --earlier are for -o terraform")
	case o.File != "" && o.Earlier != "":
		return usage.Errorf("--file and --earlier exclude each other: --file reads the file that it writes")
	case o.Output == bootstrap.Terraform && o.File == "" && o.Earlier == "":
		return usage.Errorf(
			"-o terraform: Terraform would delete a workspace that leaves the configuration, so the earlier one is needed: write with "+
				"--file bootstrap.tf, which reads the file first; "+
				"for standard output name the earlier file with --earlier FILE, or write --earlier %s the first time",
			bootstrap.NoEarlier,
		)
	case len(o.Adopt) > 0 && !o.AsksAWS():
		return usage.Errorf("--adopt-workspace and -o %s exclude each other: AWS must be asked who owns the workspace", o.Output)
	case o.WorkspaceQuota < 1:
		return usage.Errorf("--workspace-quota %d: write 1 or more", o.WorkspaceQuota)
	case (o.ExistingProvider || o.ExistingBoundary) && o.AsksAWS():
		return usage.Errorf(
			"--existing-provider and --existing-boundary are for -o terraform and -o aws-cli: with -o %s, AWS is asked",
			o.Output,
		)
	}
	return nil
}

// newBootstrap returns `ampbridge bootstrap`, which prepares an AWS account once.
func newBootstrap() *cobra.Command {
	var o bootstrap.Options
	var from bootstrap.PolicyOptions
	var workspace, module string
	cmd := &cobra.Command{
		Use:   "bootstrap --policy FILE",
		Short: "Prepare an AWS account once: workspaces, OIDC provider, boundary, sync's role",
		Long: `Bootstrap makes what an AWS account needs before sync can work: new workspaces, the
cluster's OIDC provider, the permissions boundary, and the role of sync, with the
permissions that it needs and no others. Without --apply it reads the account and shows
what is missing. With -o terraform and -o aws-cli it writes the same for others to apply,
and does not read AWS.

A destination gets a new workspace if the policy has workspace/ws-new in its ARN.
Bootstrap never changes what others made. A second run changes nothing, and the next run
completes one that was interrupted.

It works on one account at a time, with credentials of that account. Start with the
account in which sync starts.

With --from it reads the file of a Terraform module like that of kubernetes-ops, or the
role of the guide for AKS as aws iam get-role prints it. It prints the steps from there
to ampbridge, and changes nothing.`,
		Example: `  # See what is missing; then make it, and write the ARN of the new workspace into the policy.
  ampbridge bootstrap --policy policy.yaml
  ampbridge bootstrap --policy policy.yaml --apply --write-policy policy.yaml

  # For others to apply.
  ampbridge bootstrap --policy policy.yaml -o terraform --file bootstrap.tf
  ampbridge bootstrap --policy policy.yaml -o aws-cli > bootstrap.sh

  # The steps from a Terraform module to ampbridge.
  ampbridge bootstrap --from main.tf \
    --workspace arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd > migration.md

  # The steps from the role of the guide for AKS to ampbridge.
  aws iam get-role --role-name AKS-Prometheus-AMP-Role > role.json
  ampbridge bootstrap --from role.json --cluster-name dev-aks \
    --workspace arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if from.From != "" {
				if err := validateRunbook(cmd.Flags(), &from, workspace); err != nil {
					return err
				}
				return bootstrap.WriteRunbook(from, module, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			for _, name := range runbookFlags[1:] {
				if cmd.Flags().Changed(name) {
					return usage.Errorf("--%s is for --from", name)
				}
			}
			if err := validateBootstrap(o); err != nil {
				return err
			}
			return bootstrap.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	registerBootstrap(cmd.Flags(), &o)
	grouped(cmd.Flags(), "Flags for a migration", func(flags *pflag.FlagSet) {
		flags.StringVar(&from.From, "from", "",
			"print the steps from the module or role in `FILE` to ampbridge; - is standard input")
		flags.StringVar(&workspace, "workspace", "",
			"with --from: `ARN` of the module's workspace, if the file does not have it")
		flags.StringVar(&from.Destination, "destination", "central", "with --from: `NAME` of the workspace in the policies")
		flags.StringVar(&from.Dir, "dir", "policies", "with --from: `DIRECTORY` for the policies")
		flags.StringVar(&from.Cluster, "cluster-name", "", "with --from and a role: `NAME` for the cluster in the policy")
		flags.StringVar(&module, "module", "",
			"with --from: the module's `ADDRESS` in Terraform, such as module.amp, if the file does not have it")
		flags.BoolVar(&from.Strict, "strict", false, "with --from: what cannot be converted is an error")
	})
	cmd.AddCommand(newBootstrapPolicy())
	return cmd
}

// runbookFlags are those that go with --from, which is the first.
var runbookFlags = []string{"from", "workspace", "destination", "dir", "cluster-name", "module", "strict"}

// validateRunbook checks the flags, and parses the workspace into o.
func validateRunbook(flags *pflag.FlagSet, o *bootstrap.PolicyOptions, workspace string) (err error) {
	flags.Visit(func(f *pflag.Flag) {
		if !slices.Contains(runbookFlags, f.Name) {
			err = usage.Errorf("--from and --%s exclude each other: --from prints steps and does nothing else", f.Name)
		}
	})
	if problem := o.Workspace.UnmarshalText([]byte(workspace)); err == nil && problem != nil {
		err = usage.Errorf("--workspace: %v", problem)
	}
	return err
}

// newBootstrapPolicy returns `ampbridge bootstrap policy`.
func newBootstrapPolicy() *cobra.Command {
	var o bootstrap.PolicyOptions
	var workspace string
	cmd := &cobra.Command{
		Use:   "policy --from FILE --workspace ARN",
		Short: "Convert the iam_access_grant_list of a Terraform module to policies",
		Long: `Policy reads the iam_access_grant_list of a Terraform module like that of kubernetes-ops,
as JSON, as tfvars or from the module block. It writes a policy for each cluster in the
list. The workspace is the one that the module made. Policy also reads the role of the
guide for AKS, as aws iam get-role prints it. It names every entry that it cannot
convert, and then ends with status 1.`,
		Example: `  # One cluster.
  ampbridge bootstrap policy --from terraform.tfvars \
    --workspace arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd > policy.yaml

  # Several clusters: a file for each.
  ampbridge bootstrap policy --from terraform.tfvars --dir policies \
    --workspace arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateBootstrapPolicy(&o, workspace); err != nil {
				return err
			}
			return bootstrap.WritePolicies(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.From, "from", "", "`FILE` with the iam_access_grant_list, or with a role; - is standard input")
	flags.StringVar(&workspace, "workspace", "", "`ARN` of the workspace: the module's output arn")
	flags.StringVar(&o.Destination, "destination", "central", "`NAME` of the workspace in the policies")
	flags.StringVar(&o.Cluster, "cluster-name", "",
		"print the policy of the cluster with this `NAME`, if there are several; with a role: the name for the cluster")
	flags.BoolVar(&o.Strict, "strict", false, "what cannot be converted is an error")
	flags.StringVar(&o.Dir, "dir", "", "write NAME.yaml for each cluster to this `DIRECTORY`")
	return cmd
}

// validateBootstrapPolicy checks the flags, and parses the workspace into o.
func validateBootstrapPolicy(o *bootstrap.PolicyOptions, workspace string) error {
	switch err := o.Workspace.UnmarshalText([]byte(workspace)); {
	case o.From == "":
		return missing("from", "terraform.tfvars")
	case err != nil:
		return usage.Errorf("--workspace: %v", err)
	}
	return nil
}
