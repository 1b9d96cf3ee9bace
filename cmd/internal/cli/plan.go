package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/cmd/internal/terraform"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

// formatTerraform is the value of -o that prints a Terraform configuration.
const formatTerraform = "terraform"

// newPlan returns `ampbridge plan`, which prints what sync would do. With -o terraform
// it prints the same as a configuration, for teams that let no controller write IAM.
func newPlan() *cobra.Command {
	o := reconcile.Options{Once: true, DryRun: true}
	var roles terraform.RolesOptions
	cmd := &cobra.Command{
		Use:   "plan --policy FILE",
		Short: "Show what sync would change, and change nothing",
		Long: `Plan reads the cluster and the AWS accounts, and prints the changes that
"ampbridge sync --once" would make, each with its reason. It ends with status 1 if it
could not read something, or if sync would refuse a change.

With -o terraform it prints the Terraform configuration of everything that the policy
needs in one account: the cluster's OIDC provider, and for each destination a role with
its trust and permission documents. It does not read AWS. The service accounts are those
of the cluster. With --subject or --subjects-from-grants they are the named ones, and plan
needs no cluster.`,
		Example: `  ampbridge plan --policy policy.yaml
  ampbridge plan --policy policy.yaml -o json | jq '.plan.changes[].reason'

  # For teams that apply it themselves, with trust.manage: none in the policy.
  ampbridge plan --policy policy.yaml -o terraform > roles.tf
  ampbridge plan --policy policy.yaml -o terraform --subject monitoring/prometheus-k8s`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Output == formatTerraform {
				if err := validateRoles(roles, o); err != nil {
					return err
				}
				roles.Policy, roles.Kubeconfig, roles.Overrides = o.Policy, o.Kubeconfig, o.Overrides
				roles.TrustQuota = o.TrustQuota
				return terraform.PrintRoles(cmd.Context(), roles, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if err := rejectRolesFlags(cmd.Flags()); err != nil {
				return err
			}
			if err := validateSync(o); err != nil {
				return err
			}
			return reconcile.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	registerSync(cmd.Flags(), &o, formatTerraform)
	registerRoles(cmd.Flags(), &roles)
	return cmd
}

func registerRoles(flags *pflag.FlagSet, o *terraform.RolesOptions) {
	grouped(flags, "Flags for -o terraform", func(flags *pflag.FlagSet) {
		flags.StringVar(&o.Account, "account", "", "`ID` of the AWS account to write for, if the policy has several")
		flags.BoolVar(&o.ExistingProvider, "existing-provider", false,
			"the cluster's OIDC provider is managed elsewhere, such as by bootstrap")
		flags.BoolVar(&o.Import, "import", false, "write import blocks, for Terraform to take over what sync made")
		flags.StringArrayVar(&o.Subjects, "subject", nil,
			"service account to trust, as `NAMESPACE/NAME`, instead of those of the cluster; may be repeated")
		flags.BoolVar(&o.FromGrants, "subjects-from-grants", false,
			"trust the service accounts that grants name without a *, instead of those of the cluster")
	})
}

// rejectRolesFlags returns an error if a flag for -o terraform was given without it.
func rejectRolesFlags(flags *pflag.FlagSet) error {
	for _, name := range []string{"account", "existing-provider", "import", "subject", "subjects-from-grants"} {
		if flags.Changed(name) {
			return usage.Errorf("--%s is for -o terraform", name)
		}
	}
	return nil
}

func validateRoles(roles terraform.RolesOptions, o reconcile.Options) error {
	if roles.FromGrants && len(roles.Subjects) > 0 {
		return usage.Errorf("--subject and --subjects-from-grants exclude each other")
	}
	return validateSync(o)
}
