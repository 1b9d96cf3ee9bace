// Package sync is the command `ampbridge sync`: it brings the AWS accounts in
// step with the policy and with the service accounts of the cluster. What is to
// be done is decided by policy/plan, and done by awsiam.
package sync

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kubeconfig"
	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Options are the command's flags.
type Options struct {
	Policy     string
	Kubeconfig string
	Once       bool
	DryRun     bool
	Output     string
	// TrustQuota is in characters.
	TrustQuota int
}

// Output formats.
const (
	Text = "text"
	JSON = "json"
)

// Register adds the flags that sync shares with plan.
func (o *Options) Register(flags *pflag.FlagSet) {
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`; - is standard input")
	kubeconfig.Register(flags, &o.Kubeconfig)
	flags.StringVarP(&o.Output, "output", "o", Text, "output `FORMAT`: text or json")
	flags.IntVar(&o.TrustQuota, "trust-quota", plan.TrustQuota, "the accounts' quota of `CHARACTERS` in a role's trust document, where it was raised")
}

func (o *Options) register(flags *pflag.FlagSet) {
	o.Register(flags)
	flags.BoolVar(&o.Once, "once", false, "sync once and end, as in a CronJob")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print the plan and change nothing")
}

// Validate names what is missing or wrong among the flags.
func (o *Options) Validate() error {
	switch {
	case o.Policy == "":
		return usage.Errorf("no policy: name its file with --policy")
	case !o.Once:
		return usage.Errorf("the controller form of sync comes in a later version: add --once, and run it from a CronJob until then")
	case o.TrustQuota < plan.TrustQuota:
		return usage.Errorf("--trust-quota %d is less than what every account has: write %d or more", o.TrustQuota, plan.TrustQuota)
	}
	return usage.OneOf("output", o.Output, Text, JSON)
}

// New is the command.
func New() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "sync --once --policy FILE",
		Short: "Bring the AWS accounts in step with the policy",
		Long: `Sync makes, and corrects, what the policy's destinations need in their AWS
accounts: the cluster's OIDC provider, and for each destination a role that
exactly the granted service accounts may assume, and that may write to that
workspace and do nothing else.

It prints the plan, carries it out, and ends with status 0 when everything is in
step, with 1 when something failed or was refused. What others made is never
changed. A second run changes nothing.

Credentials come from where the AWS SDKs look for them; an account with a
syncRole in the policy is reached by assuming it.`,
		Example: `  # See what would be done, then do it.
  ampbridge sync --once --policy policy.yaml --dry-run
  ampbridge sync --once --policy policy.yaml

  # For other programs.
  ampbridge sync --once --policy policy.yaml -o json | jq .inStep`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.Validate(); err != nil {
				return err
			}
			return Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// Report is what a run found and did.
type Report struct {
	Plan plan.Plan `json:"plan"`
	// DryRun: nothing was carried out.
	DryRun bool `json:"dryRun"`
	// Made counts the changes that were carried out.
	Made     int       `json:"made"`
	Failures []Failure `json:"failures"`
	// InStep: nothing is left to do, and nothing was refused.
	InStep bool `json:"inStep"`
}

// Failure is a change that was not made.
type Failure struct {
	Call     plan.Call  `json:"call"`
	Resource policy.ARN `json:"resource"`
	Error    string     `json:"error"`
}

// Run syncs once and reports on stdout. The error says that not everything is in
// step, or why nothing could be decided.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	cluster, err := connect(o.Kubeconfig)
	if err != nil {
		return err
	}
	issuer, err := cluster.issuer(ctx, p.Cluster.Issuer)
	if err != nil {
		return err
	}
	accounts, err := cluster.serviceAccounts(ctx)
	if err != nil {
		return err
	}
	iam := awsiam.New(p.Trust.Accounts)
	observed := map[string]plan.Account{}
	for _, target := range plan.Targets(p, issuer) {
		observed[target.Account] = iam.Observe(ctx, target)
	}
	report := Report{DryRun: o.DryRun, Failures: []Failure{}, Plan: plan.Make(plan.Input{
		Policy: p, Issuer: issuer, ServiceAccounts: accounts, Accounts: observed, TrustQuota: o.TrustQuota,
	})}
	if o.Output == Text {
		if _, err := io.WriteString(stdout, report.Plan.String()); err != nil {
			return err
		}
	}
	if !o.DryRun {
		report.apply(ctx, iam.Apply)
	}
	report.InStep = len(report.Plan.Refusals) == 0 && report.Made == len(report.Plan.Changes)
	if err := report.write(stdout, o.Output); err != nil {
		return err
	}
	if n := len(report.Plan.Refusals) + len(report.Failures); n > 0 {
		return fmt.Errorf("%d of the policy's wishes could not be met", n)
	}
	return nil
}

// apply makes the changes in their order. One that fails takes those along that
// build on it: the later ones of the same role, and after a provider the rest of
// its account.
func (r *Report) apply(ctx context.Context, apply func(context.Context, plan.Change) error) {
	failed := map[string]plan.Call{}
	for _, c := range r.Plan.Changes {
		err := ctx.Err()
		for _, base := range []string{c.Account, c.Resource.String()} {
			if call, found := failed[base]; found && err == nil {
				err = fmt.Errorf("%s: not tried, because %s failed", c.Call, call)
			}
		}
		if err == nil {
			err = apply(ctx, c)
		}
		if err == nil {
			r.Made++
			continue
		}
		base := c.Resource.String()
		if c.Call.OnProvider() {
			base = c.Account
		}
		if _, found := failed[base]; !found {
			failed[base] = c.Call
		}
		r.Failures = append(r.Failures, Failure{c.Call, c.Resource, err.Error()})
	}
}

func (r *Report) write(stdout io.Writer, format string) error {
	if format == JSON {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(stdout, "%s\n", text)
		return err
	}
	var errs []error
	for _, f := range r.Failures {
		_, err := fmt.Fprintf(stdout, "! failed: %s: %s\n", f.Resource, f.Error)
		errs = append(errs, err)
	}
	_, err := fmt.Fprintln(stdout, r.closing())
	return errors.Join(append(errs, err)...)
}

func (r *Report) closing() string {
	switch {
	case r.DryRun && !r.Plan.InStep():
		return "sync: dry run: nothing was changed"
	case r.InStep && r.Made == 0:
		return "sync: in step: nothing to change"
	case r.InStep:
		return fmt.Sprintf("sync: in step: %d of %d changes made", r.Made, len(r.Plan.Changes))
	}
	return fmt.Sprintf("sync: not in step: %d of %d changes made, %d refused", r.Made, len(r.Plan.Changes), len(r.Plan.Refusals))
}
