// Package reconcile brings the AWS accounts in sync with the policy and with the
// service accounts of the cluster. Package policy/plan decides what to change;
// package awsiam changes it.
//
// [Run] makes one pass. [Control] makes passes until its context ends. Both make the
// same pass: observe, plan, apply. The command line is in cmd/internal/cli.
//
// What it needs of Kubernetes:
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
// With the auditor it also needs what package audit lists.
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

// Options say what to reconcile, and how.
type Options struct {
	// Policy is the policy file; [policyfile.Stdin] is for [Run] alone.
	Policy     string
	Kubeconfig string
	Overrides  kube.Overrides
	Once       bool
	// DryRun plans and changes nothing.
	DryRun bool
	// Output is [Text], [JSON] or [YAML].
	Output string
	// TrustQuota is in characters.
	TrustQuota int
	// ProviderQuota is how many OIDC providers an account takes; 0: [ProviderQuota].
	ProviderQuota int
	// Namespace is ampbridge's own. It has the stored state and the Lease.
	Namespace string
	// AllowShrink prunes even where more than half would go at once.
	AllowShrink bool
	// Remove deletes what the cluster owns; only with Yes, or as a DryRun.
	Remove, Yes bool
	// HealthAddr serves /healthz and /readyz, MetricsAddr /metrics, as host:port;
	// for [Control].
	HealthAddr, MetricsAddr string
	// StatusAddr serves the status page, on loopback; empty: there is none.
	StatusAddr string
	// Image is the sidecar that the webhook injects: the auditor compares pods
	// with it. Empty: no auditor. NoBreaker turns its circuit breaker off.
	Image     string
	NoBreaker bool
	// NoSidecarStatus: the auditor reads no sidecar's status.
	NoSidecarStatus bool
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

// ErrUnconfirmed is the error of a removal without Yes.
var ErrUnconfirmed = errors.New("nothing was deleted: add --yes to delete it, --dry-run to look only")

// Run makes one pass and reports on stdout. The error says that AWS is not in sync,
// or why nothing could be decided.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
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
	if o.Remove {
		return remove(ctx, o, r, p, issuer, stdout)
	}
	accounts, err := cluster.ServiceAccounts(ctx)
	if err != nil {
		return err
	}
	planned, err := r.prepare(ctx, snapshot{policy: p, issuer: issuer, accounts: accounts, live: true, orphans: true, dryRun: o.DryRun})
	if err != nil {
		return err
	}
	return applyAndReport(ctx, o, r, planned, stdout)
}

// applyAndReport prints the plan, applies it unless it is a dry run, and reports.
func applyAndReport(ctx context.Context, o Options, r *reconciler, p plan.Plan, stdout io.Writer) error {
	report := Report{DryRun: o.DryRun, Failures: []Failure{}, Plan: p}
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
