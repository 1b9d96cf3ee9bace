package reconcile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// clusterTimeout limits the question for the issuer of a cluster that may be gone.
const clusterTimeout = 10 * time.Second

// removeOf deletes what the policy's cluster owns in the accounts of the policy. A cluster that is
// gone need not answer, if the policy has its issuer. A cluster that answers with another issuer
// ends the removal, because the policy or the kubeconfig is the wrong one.
func removeOf(ctx context.Context, o Options, p *policy.Policy, stdout io.Writer) error {
	bounded, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
	var issuer policy.Issuer
	if err == nil {
		issuer, err = cluster.Issuer(bounded, p.Cluster.Issuer)
	}
	switch {
	case errors.As(err, &kube.OtherIssuerError{}):
		return fmt.Errorf("%w; if the policy's cluster is gone, name no cluster: KUBECONFIG=/dev/null", err)
	case err != nil && p.Cluster.Issuer == "":
		return fmt.Errorf("%w; if the cluster is gone, write its issuer into the policy as cluster.issuer: "+
			"then no cluster is needed", err)
	case err != nil:
		issuer = p.Cluster.Issuer
	}
	return remove(ctx, o, p, issuer, stdout)
}

// remove deletes what the cluster with the issuer owns. It does not call the cluster.
func remove(ctx context.Context, o Options, p *policy.Policy, issuer policy.Issuer, stdout io.Writer) error {
	r := o.reconciler(kube.Cluster{}, p)
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
