package sync

import (
	"context"
	"io"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// remove deletes what the cluster owns in the accounts of the policy.
func remove(ctx context.Context, o Options, passes *reconciler, p *policy.Policy, issuer policy.Issuer, stdout io.Writer) error {
	observed := map[string]plan.Account{}
	for _, target := range plan.RemovalTargets(p, issuer) {
		observed[target.Account] = passes.iam.References(ctx, target, passes.iam.Observe(ctx, target))
	}
	deletions := plan.Remove(p, issuer, observed)
	unconfirmed := !o.Yes && !o.DryRun && len(deletions.Changes) > 0
	o.DryRun = o.DryRun || unconfirmed
	err := applyAndReport(ctx, o, passes, deletions, stdout)
	if unconfirmed {
		return usage.Errorf("nothing was deleted: add --yes to delete it, --dry-run to look only")
	}
	return err
}
