package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// validation is what validate reports of a policy file.
type validation struct {
	File  string `json:"file"`
	Valid bool   `json:"valid"`
	// Cluster, Destinations and Grants describe a valid policy.
	Cluster      string `json:"cluster,omitempty"`
	Destinations int    `json:"destinations,omitempty"`
	Grants       int    `json:"grants,omitempty"`
	// Notes are about what is allowed and often a mistake.
	Notes    policy.Errors `json:"notes,omitempty"`
	Mistakes policy.Errors `json:"mistakes"`
}

// newValidate returns `ampbridge validate`, which reports every mistake in policy files.
func newValidate() *cobra.Command {
	var paths []string
	var format string
	cmd := &cobra.Command{
		Use:   "validate (--policy FILE | FILE)...",
		Short: "Check policy files and report every mistake",
		Long: `Validate reads policy files as strictly as the webhook does, and prints every mistake as
FILE: line N: field: problem. It ends with status 1 if there is a mistake. The file - is
standard input. A file can also be a values file of the chart: its policy is checked. What
is allowed and often a mistake, such as an unknown region, gets a note on stderr. With
-o json and -o yaml, mistakes and notes are in the report on stdout.`,
		Example: `  ampbridge validate --policy policy.yaml
  ampbridge validate policies/*.yaml
  ampbridge validate values.yaml

  # The policy of a cluster; adapt the name of the ConfigMap.
  kubectl get configmap -n ampbridge-system ampbridge-policy -o yaml > configmap.yaml
  yq '.data["policy.yaml"]' configmap.yaml | ampbridge validate --policy -

  # For other programs.
  ampbridge validate --policy policy.yaml -o json`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			all := slices.Concat(paths, args)
			if err := checkPolicyPaths(all); err != nil {
				return err
			}
			return validatePolicies(all, format, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().StringArrayVar(&paths, "policy", nil, "policy `FILE`; - is standard input; may be repeated")
	registerOutput(cmd.Flags(), &format)
	return cmd
}

func checkPolicyPaths(paths []string) error {
	if len(paths) == 0 {
		return missing("policy", examplePolicy)
	}
	stdin := slices.Index(paths, policyfile.Stdin)
	if stdin >= 0 && slices.Contains(paths[stdin+1:], policyfile.Stdin) {
		return usage.Errorf("standard input is named twice: it can be read once")
	}
	return nil
}

// validatePolicies checks the files. As text, the error has a line for every mistake.
func validatePolicies(paths []string, format string, stdin io.Reader, stdout, stderr io.Writer) error {
	var errs []error
	report := []validation{}
	for _, path := range paths {
		p, err := policyfile.Load(path, stdin)
		if err != nil {
			errs = append(errs, err)
			report = append(report, validation{File: path, Mistakes: mistakes(err)})
			continue
		}
		v := validation{
			File: path, Valid: true, Cluster: p.Cluster.Name,
			Destinations: len(p.Destinations), Grants: len(p.Grants), Notes: p.Notes(), Mistakes: policy.Errors{},
		}
		report = append(report, v)
		if format != output.Text {
			continue
		}
		for _, n := range v.Notes {
			_, _ = fmt.Fprintf(stderr, "ampbridge: %s: note: %v\n", path, n)
		}
		_, err = fmt.Fprintf(stdout, "%s: ok: cluster %s, %s, %s\n", path, v.Cluster,
			counted(v.Destinations, "destination"), counted(v.Grants, "grant"))
		if err != nil {
			return err
		}
	}
	if format == output.Text {
		return errors.Join(errs...)
	}
	if err := output.Write(stdout, format, report); err != nil || len(errs) == 0 {
		return err
	}
	return fmt.Errorf("%d of %d policy files have mistakes", len(errs), len(paths))
}

// counted returns the number with the noun, in the plural if the number is not 1.
func counted(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// mistakes returns the mistakes that the error of a policy file has.
func mistakes(err error) (list policy.Errors) {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		for _, e := range joined.Unwrap() {
			list = append(list, mistakes(e)...)
		}
		return list
	}
	if field, ok := errors.AsType[policy.FieldError](err); ok {
		return policy.Errors{field}
	}
	return policy.Errors{{Problem: err.Error()}}
}
