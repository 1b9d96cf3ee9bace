// Package sync is the command `ampbridge sync`: it brings the AWS accounts in
// step with the policy and with the service accounts of the cluster. What is to
// be done is decided by policy/plan, and done by awsiam.
//
// [Run] does it once, [Control] as long as it runs. Both make the same passes:
// observe, plan, carry out.
//
// What it needs of Kubernetes:
//
//	everywhere
//	  namespaces, serviceaccounts    list, watch
//	  pods                           list, before anybody is pruned
//	  events                         create, patch
//	  the issuer's discovery         ClusterRole system:service-account-issuer-discovery
//	in its own namespace
//	  configmaps                     create; get and update of ampbridge-sync
//	  leases.coordination.k8s.io     create, get, update and patch of ampbridge-sync
//
// With the auditor it needs also what package audit lists.
//
// [Run] does without watch, events and the Lease; without the ConfigMap it
// prunes nobody, and says so.
package sync

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
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
	// ProviderQuota is how many OIDC providers an account takes; 0: [ProviderQuota].
	ProviderQuota int
	// Namespace is ampbridge's own, where sync's memory and Lease are.
	Namespace string
	// AllowShrink prunes even where more than half would go at once.
	AllowShrink bool
	// Remove deletes what the cluster owns; only with Yes, or as a DryRun.
	Remove, Yes bool
	// HealthAddr serves /healthz and /readyz, MetricsAddr /metrics, as host:port;
	// for the controller form.
	HealthAddr, MetricsAddr string
	// Image is the sidecar that the webhook injects: the auditor compares pods
	// with it. Empty: no auditor. NoBreaker turns its circuit breaker off.
	Image     string
	NoBreaker bool
	// Excluded are namespaces that the webhook is not called for: no auditor either.
	Excluded []string
	// PullGrace is how long that image may be on its way to a node; 0: the auditor's
	// default.
	PullGrace time.Duration
	// Now is the clock by which grace periods are measured; nil: the system's.
	Now func() time.Time
}

// ProviderQuota is how many OIDC providers an account takes, unless its quota was
// raised (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const ProviderQuota = 100

// Output formats.
const (
	Text = "text"
	JSON = "json"
)

// Register adds the flags that sync shares with plan.
func (o *Options) Register(flags *pflag.FlagSet) {
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`; - is standard input")
	kube.RegisterFlag(flags, &o.Kubeconfig)
	flags.StringVarP(&o.Output, "output", "o", Text, "output `FORMAT`: text or json")
	flags.StringVar(&o.Namespace, "namespace", ownNamespace(), "ampbridge's own `NAMESPACE`, where sync remembers since when service accounts are missing")
	flags.BoolVar(&o.AllowShrink, "allow-shrink", false, "prune even where more than half of a role's or account's subjects would go at once")
	flags.IntVar(&o.TrustQuota, "trust-quota", plan.TrustQuota, "the accounts' quota of `CHARACTERS` in a role's trust document, where it was raised")
	flags.IntVar(&o.ProviderQuota, "provider-quota", ProviderQuota, "the accounts' quota of OIDC `PROVIDERS`, where it was raised")
}

func (o *Options) register(flags *pflag.FlagSet) {
	o.Register(flags)
	flags.BoolVar(&o.Once, "once", false, "sync once and end, as in a CronJob")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print the plan and change nothing")
	flags.BoolVar(&o.Remove, "remove", false, "delete what this cluster owns in the policy's accounts: its roles and its OIDC provider; needs --yes")
	flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "`HOST:PORT` for /healthz and /readyz")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "`HOST:PORT` for /metrics")
	flags.StringVar(&o.Image, "image", "", "`IMAGE` of the config sidecar, as the webhook was told it: turns the auditor on")
	flags.BoolVar(&o.NoBreaker, "no-breaker", false, "with --image: never pause the injection of a workload whose pods hang on the config sidecar")
	flags.StringSliceVar(&o.Excluded, "excluded-namespaces", nil, "with --image: `NAMESPACES`, by commas, that the webhook's registration excludes")
	flags.DurationVar(&o.PullGrace, "pull-grace", 0, "with --image: how long a node may take to pull that image before the injection of the workload pauses (default 1m0s)")
	flags.BoolVar(&o.Yes, "yes", false, "with --remove: really delete")
}

// ownNamespace is that of the pod that this process runs in.
func ownNamespace() string {
	name, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return "ampbridge-system"
	}
	return strings.TrimSpace(string(name))
}

// Validate names what is missing or wrong among the flags.
func (o *Options) Validate() error {
	switch {
	case o.Policy == "":
		return usage.Errorf("no policy: name its file with --policy")
	case o.Yes && !o.Remove:
		return usage.Errorf("--yes is for --remove")
	case o.Namespace == "":
		return usage.Errorf("--namespace is empty")
	case o.Once && o.Remove:
		return usage.Errorf("--once and --remove exclude each other")
	case !o.endless() && o.Image != "":
		return usage.Errorf("--image is for the controller: the auditor goes round as long as it runs")
	case !o.endless():
	case o.DryRun:
		return usage.Errorf("--dry-run is for --once and --remove; or see ampbridge plan")
	case o.AllowShrink:
		return usage.Errorf("--allow-shrink is for --once: it is meant for one run, not for all that follow; run it beside the controller")
	case o.NoBreaker && o.Image == "":
		return usage.Errorf("--no-breaker is for --image: without it there is no auditor")
	case len(o.Excluded) > 0 && o.Image == "":
		return usage.Errorf("--excluded-namespaces is for --image: without it there is no auditor")
	case o.PullGrace != 0 && (o.Image == "" || o.PullGrace < time.Second):
		return usage.Errorf("--pull-grace is for --image, and 1s or more")
	case o.Policy == policyfile.Stdin:
		return usage.Errorf("--policy - is for --once: without it the file is read again and again")
	}
	if o.TrustQuota < plan.TrustQuota {
		return usage.Errorf("--trust-quota %d is less than what every account has: write %d or more", o.TrustQuota, plan.TrustQuota)
	}
	if o.ProviderQuota != 0 && o.ProviderQuota < ProviderQuota {
		return usage.Errorf("--provider-quota %d is less than what every account has: write %d or more", o.ProviderQuota, ProviderQuota)
	}
	return usage.OneOf("output", o.Output, Text, JSON)
}

// endless tells whether it is the controller form.
func (o *Options) endless() bool { return !o.Once && !o.Remove }

// New is the command.
func New() *cobra.Command {
	var o Options
	var logFormat string
	cmd := &cobra.Command{
		Use:   "sync --policy FILE",
		Short: "Bring the AWS accounts in step with the policy",
		Long: `Sync makes, and corrects, what the policy's destinations need in their AWS
accounts: the cluster's OIDC provider, and for each destination a role that
exactly the granted service accounts may assume, and whose permission document
lets it write to that workspace and nothing else. The role of a destination that
is gone from the policy is closed: nobody may assume it.

Who is trusted is followed as service accounts, namespaces and the policy file
change; every trust.interval all of AWS is compared again. Several processes may
run: one works, the others stand by. Trust of a service account that is gone for
longer than trust.pruneAfter is taken away, unless a pod of it runs.

With --once it prints the plan, carries it out, and ends with status 0 when
everything is in step, with 1 when something failed or was refused. What others
made is never changed. A second run changes nothing.

With --remove it deletes what this cluster owns in the policy's accounts. Stop
the webhook and every other sync first: a sync that runs makes it again.

Credentials come from where the AWS SDKs look for them; an account with a
syncRole in the policy is reached by assuming it.`,
		Example: `  # See what would be done, then do it.
  ampbridge sync --once --policy policy.yaml --dry-run
  ampbridge sync --once --policy policy.yaml

  # As a controller.
  ampbridge sync --policy policy.yaml

  # At the end: see what would be deleted, then delete it.
  ampbridge sync --remove --policy policy.yaml --dry-run
  ampbridge sync --remove --policy policy.yaml --yes

  # For other programs.
  ampbridge sync --once --policy policy.yaml -o json | jq .inStep`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(o.Validate(), usage.OneOf("log-format", logFormat, Text, JSON)); err != nil {
				return err
			}
			if !o.endless() {
				return Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
			}
			var handler slog.Handler = slog.NewJSONHandler(cmd.ErrOrStderr(), nil)
			if logFormat == Text {
				handler = slog.NewTextHandler(cmd.ErrOrStderr(), nil)
			}
			return Control(cmd.Context(), o, slog.New(handler))
		},
	}
	o.register(cmd.Flags())
	cmd.Flags().StringVar(&logFormat, "log-format", JSON, "`FORMAT` of the log on stderr: json or text")
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
	// InSync: nothing is left to do, and nothing was refused.
	InSync bool `json:"inStep"`
}

// Failure is a change that was not made.
type Failure struct {
	Call     plan.Call  `json:"call"`
	Resource policy.ARN `json:"resource"`
	Error    string     `json:"error"`
	// skipped: it was not tried, because of another failure.
	skipped bool
}

// Run syncs once and reports on stdout. The error says that not everything is in
// step, or why nothing could be decided.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	cluster, err := kube.Connect(o.Kubeconfig)
	if err != nil {
		return err
	}
	issuer, err := cluster.Issuer(ctx, p.Cluster.Issuer)
	if err != nil {
		return err
	}
	passes := o.reconciler(cluster, p)
	if o.Remove {
		return remove(ctx, o, passes, p, issuer, stdout)
	}
	accounts, err := cluster.ServiceAccounts(ctx)
	if err != nil {
		return err
	}
	made, err := passes.prepare(ctx, snapshot{policy: p, issuer: issuer, accounts: accounts, live: true, orphans: true, dryRun: o.DryRun})
	if err != nil {
		return err
	}
	return applyAndReport(ctx, o, passes, made, stdout)
}

// applyAndReport shows the plan, carries it out unless it is a dry run, and reports.
func applyAndReport(ctx context.Context, o Options, passes *reconciler, p plan.Plan, stdout io.Writer) error {
	report := Report{DryRun: o.DryRun, Failures: []Failure{}, Plan: p}
	if o.Output == Text {
		if _, err := io.WriteString(stdout, p.String()); err != nil {
			return err
		}
	}
	if !o.DryRun {
		var made []plan.Change
		made, report.Failures = passes.apply(ctx, p)
		report.Made = len(made)
	}
	report.InSync = len(p.Refusals) == 0 && report.Made == len(p.Changes)
	if err := report.write(stdout, o.Output); err != nil {
		return err
	}
	if n := len(p.Refusals) + len(report.Failures); n > 0 {
		return fmt.Errorf("%d of the policy's wishes could not be met", n)
	}
	return nil
}

func (o *Options) reconciler(cluster kube.Cluster, p *policy.Policy) *reconciler {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return &reconciler{
		cluster: cluster, iam: awsiam.New(p.Trust.Accounts), state: stateStore{cluster.Client, o.Namespace},
		trustQuota: o.TrustQuota, providerQuota: cmp.Or(o.ProviderQuota, ProviderQuota), allowShrink: o.AllowShrink, now: now,
		seenWorkspaces: map[policy.ARN]bool{},
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
	case r.DryRun && !r.Plan.InSync():
		return "sync: dry run: nothing was changed"
	case r.removes():
		return fmt.Sprintf("sync: removed: %d of %d deletions made, %d refused", r.Made, len(r.Plan.Changes), len(r.Plan.Refusals))
	case r.InSync && r.Made == 0:
		return "sync: in step: nothing to change"
	case r.InSync:
		return fmt.Sprintf("sync: in step: %d of %d changes made", r.Made, len(r.Plan.Changes))
	}
	return fmt.Sprintf("sync: not in step: %d of %d changes made, %d refused", r.Made, len(r.Plan.Changes), len(r.Plan.Refusals))
}

func (r *Report) removes() bool {
	return len(r.Plan.Changes) > 0 && r.Plan.Changes[0].Call.Deletes()
}
