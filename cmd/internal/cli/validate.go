package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// newValidate returns `ampbridge validate`, which reports every mistake in policy files.
func newValidate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate POLICY...",
		Short: "Check policy files and report every mistake",
		Long: `Validate reads policy files as strictly as the webhook does, and prints every
mistake as FILE: line N: field: problem. It ends with status 1 if there is one.
The file - is standard input.`,
		Example: `  ampbridge validate policy.yaml

  # The policy of a cluster; adapt the name of the ConfigMap.
  kubectl get configmap -n ampbridge policy -o jsonpath='{.data.policy\.yaml}' | ampbridge validate -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkPolicyPaths(args); err != nil {
				return err
			}
			return validatePolicies(args, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

func checkPolicyPaths(paths []string) error {
	if len(paths) == 0 {
		return usage.Errorf("no policy: name its file, or - for standard input")
	}
	stdin := slices.Index(paths, policyfile.Stdin)
	if stdin >= 0 && slices.Contains(paths[stdin+1:], policyfile.Stdin) {
		return usage.Errorf("standard input is named twice: it can be read once")
	}
	return nil
}

// validatePolicies checks the files. The error has a line for every mistake.
func validatePolicies(paths []string, stdin io.Reader, stdout io.Writer) error {
	var errs []error
	for _, path := range paths {
		p, err := policyfile.Load(path, stdin)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if _, err := fmt.Fprintf(
			stdout,
			"%s: ok: cluster %s, %d destinations, %d grants\n",
			path,
			p.Cluster.Name,
			len(p.Destinations),
			len(p.Grants),
		); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}
