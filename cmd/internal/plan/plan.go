// Package plan is the command `ampbridge plan`: what sync would do.
package plan

import (
	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/sync"
)

// New is the command.
func New() *cobra.Command {
	o := sync.Options{Once: true, DryRun: true}
	cmd := &cobra.Command{
		Use:   "plan --policy FILE",
		Short: "Show what sync would change, and change nothing",
		Long: `Plan reads the cluster and the AWS accounts and prints the changes that
"ampbridge sync --once" would make, each with its reason. It ends with status 1
where something could not be read, or would be refused.`,
		Example: `  ampbridge plan --policy policy.yaml
  ampbridge plan --policy policy.yaml -o json | jq '.plan.changes[].reason'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			return sync.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.Register(cmd.Flags())
	return cmd
}
