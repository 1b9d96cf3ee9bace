// Package validate is the command `ampbridge validate`: every mistake in policy
// files, before the cluster sees them.
package validate

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
)

// New is the command.
func New() *cobra.Command {
	return &cobra.Command{
		Use:   "validate POLICY...",
		Short: "Check policy files and report every mistake",
		Long: `Validate reads policy files as strictly as the webhook does, and prints every
mistake as FILE: line N: field: problem. It ends with status 1 where there is one.
The file - is standard input.`,
		Example: `  ampbridge validate policy.yaml
  helm template ampbridge charts/ampbridge -s templates/policy.yaml | yq '.data["policy.yaml"]' | ampbridge validate -`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return Run(args, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// Run checks the files. The error has a line for every mistake.
func Run(paths []string, stdin io.Reader, stdout io.Writer) error {
	var errs []error
	for _, path := range paths {
		p, err := policyfile.Load(path, stdin)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := fmt.Fprintf(stdout, "%s: ok: cluster %s, %d destinations, %d grants\n", path, p.Cluster.Name, len(p.Destinations), len(p.Grants)); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
