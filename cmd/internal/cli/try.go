package cli

import (
	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/preview"
)

// newTry returns `ampbridge try`, which shows what ampbridge does, with examples that are
// part of the program.
func newTry() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "try",
		Short: "Show what ampbridge does, with an example: no cluster, no AWS",
		Long: `Try prints what ampbridge makes of an example: a policy, a Prometheus pod before and after,
its configuration before and after, the roles in the AWS accounts, and what doctor reports
of a mistake. It reads and changes no cluster and no AWS account.`,
		Example: "  ampbridge try | less\n  ampbridge try -o json | jq .plan.changes",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return preview.Try(publishedImage(), format, cmd.OutOrStdout())
		},
	}
	registerOutput(cmd.Flags(), &format)
	return cmd
}
