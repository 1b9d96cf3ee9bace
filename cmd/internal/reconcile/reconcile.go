// Package reconcile brings the AWS accounts in sync with the policy and with the
// service accounts of the cluster. Package policy/plan decides what to change;
// package awsiam changes it.
//
// [Run] makes one pass. [Control] makes passes until its context ends. Both make the
// same pass: observe, plan, apply. The command line is in cmd/internal/cli.
//
// The rights that it needs in Kubernetes:
//
//	everywhere
//	  namespaces, serviceaccounts    list, watch
//	  pods                           list, before a subject is pruned
//	  events                         create, patch
//	  the issuer's discovery         ClusterRole system:service-account-issuer-discovery
//	in its own namespace
//	  configmaps                     create; get and update of ampbridge-sync
//	  leases.coordination.k8s.io     create, get, update and patch of ampbridge-sync
//
// With the auditor it also needs the rights in the documentation of package audit.
//
// [Run] needs no watch, no events and no Lease. Without the ConfigMap it prunes no
// subject, and the plan has a note about it.
package reconcile

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// Options configures [Run] and [Control].
type Options struct {
	// Policy is the policy file; only [Run] accepts [policyfile.Stdin].
	Policy     string
	Kubeconfig string
	Overrides  kube.Overrides
	Once       bool
	// DryRun plans, and changes nothing.
	DryRun bool
	// Output is [Text], [JSON] or [YAML].
	Output string
	// TrustQuota is the limit of a trust document, in characters.
	TrustQuota int
	// ProviderQuota is the number of OIDC providers that an account may have; 0 means [ProviderQuota].
	ProviderQuota int
	// Namespace is ampbridge's own namespace. It has the stored state and the Lease.
	Namespace string
	// AllowShrink prunes even if more than half of the subjects would go at once.
	AllowShrink bool
	// Remove deletes what the cluster owns. It needs Yes or DryRun.
	Remove, Yes bool
	// HealthAddr serves /healthz and /readyz, and MetricsAddr serves /metrics. Both are host:port
	// and only for [Control].
	HealthAddr, MetricsAddr string
	// StatusAddr serves the status page on a loopback address; if empty, there is no page.
	StatusAddr string
	// Image is the sidecar that the webhook injects; the auditor compares pods
	// with it. If empty, there is no auditor. NoBreaker turns the circuit breaker off.
	Image     string
	NoBreaker bool
	// NoSidecarStatus stops the auditor from reading the status of sidecars.
	NoSidecarStatus bool
	// Excluded are namespaces that the webhook is not called for. The auditor ignores them.
	Excluded []string
	// PullGrace is how long the download of that image to a node may take; 0 means the auditor's
	// default.
	PullGrace time.Duration
	// Now is the clock for grace periods; nil means the system's.
	Now func() time.Time
}

// ProviderQuota is the number of OIDC providers that an account may have, unless its quota was
// raised (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const ProviderQuota = 100

// ErrUnconfirmed is the error of a removal without Yes.
var ErrUnconfirmed = errors.New("nothing was deleted: add --yes to delete, or --dry-run to see what would be deleted")

// Run makes one pass and reports on stdout. An error means that AWS is not in sync,
// or that no plan was possible.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	if o.Remove {
		return removeOf(ctx, o, p, stdout)
	}
	cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
	if err != nil {
		return err
	}
	issuer, err := cluster.Issuer(ctx, p.Cluster.Issuer)
	if err != nil {
		return err
	}
	r := o.reconciler(cluster, p)
	accounts, err := cluster.ServiceAccounts(ctx)
	if err != nil {
		return err
	}
	planned, err := r.prepare(ctx, snapshot{policy: p, issuer: issuer, accounts: accounts, live: true, orphans: true, dryRun: o.DryRun})
	if err != nil {
		return err
	}
	return applyAndReport(ctx, o, r, Report{Plan: planned, unmanaged: p.Trust.Manage == policy.ManageNone}, stdout)
}

// applyAndReport prints the report's plan, applies it unless it is a dry run, and reports.
func applyAndReport(ctx context.Context, o Options, r *reconciler, report Report, stdout io.Writer) error {
	p := report.Plan
	report.DryRun, report.Failures = o.DryRun, []Failure{}
	if o.Output == Text {
		if _, err := io.WriteString(stdout, p.String()); err != nil {
			return err
		}
	}
	if !o.DryRun {
		var made []plan.Change
		made, report.Failures = r.apply(ctx, p)
		report.Made = len(made)
	}
	report.InSync = len(p.Refusals) == 0 && report.Made == len(p.Changes)
	if err := report.write(stdout, o.Output); err != nil {
		return err
	}
	if n := len(p.Refusals) + len(report.Failures); n > 0 {
		return fmt.Errorf("%d changes failed or were refused", n)
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
		seenWorkspaces: map[policy.ARN]bool{}, seenBounds: map[[2]policy.ARN]bool{}, limited: map[string]bool{},
	}
}
