// Package plan is the command `ampbridge plan`: what sync would do, or, with
// -o terraform, the same as a configuration for teams that let no controller
// write IAM.
package plan

import (
	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/sync"
)

// New is the command.
func New() *cobra.Command {
	o := sync.Options{Once: true, DryRun: true}
	var t terraformOptions
	cmd := &cobra.Command{
		Use:   "plan --policy FILE",
		Short: "Show what sync would change, and change nothing",
		Long: `Plan reads the cluster and the AWS accounts and prints the changes that
"ampbridge sync --once" would make, each with its reason. It ends with status 1
where something could not be read, or would be refused.

With -o terraform it prints, without looking at AWS, the Terraform configuration
of everything that the policy wants in one account: the cluster's OIDC provider,
and for each destination a role with its trust and permission documents. The
service accounts are those of the cluster, or with --subject and
--subjects-from-grants those that are named, and then no cluster is needed.`,
		Example: `  ampbridge plan --policy policy.yaml
  ampbridge plan --policy policy.yaml -o json | jq '.plan.changes[].reason'

  # For people who apply it themselves; the policy says trust.manage: none.
  ampbridge plan --policy policy.yaml -o terraform > roles.tf
  ampbridge plan --policy policy.yaml -o terraform --subject monitoring/prometheus-k8s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Output == formatTerraform {
				if err := t.validate(o); err != nil {
					return err
				}
				return t.run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			if err := t.unused(cmd.Flags()); err != nil {
				return err
			}
			if err := o.Validate(); err != nil {
				return err
			}
			return sync.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.Register(cmd.Flags())
	cmd.Flags().Lookup("output").Usage = "output `FORMAT`: text, json or terraform"
	t.register(cmd.Flags())
	return cmd
}
