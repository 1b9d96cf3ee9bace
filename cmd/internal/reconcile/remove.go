package reconcile

import (
	"context"
	"io"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// remove deletes what the cluster owns in the accounts of the policy. It does not call the cluster.
func remove(
	ctx context.Context, o Options, cluster kube.Cluster, p *policy.Policy, issuer policy.Issuer, stdout io.Writer,
) error {
	r := o.reconciler(cluster, p)
	observed := map[string]plan.Account{}
	for _, target := range plan.RemovalTargets(p, issuer) {
		observed[target.Account] = r.iam.References(ctx, target, r.iam.Observe(ctx, target))
	}
	deletions := plan.Remove(p, issuer, observed)
	unconfirmed := !o.Yes && !o.DryRun && len(deletions.Changes) > 0
	o.DryRun = o.DryRun || unconfirmed
	err := applyAndReport(ctx, o, r, Report{Plan: deletions}, stdout)
	if unconfirmed {
		return ErrUnconfirmed
	}
	return err
}
