package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// RemovalTargets are all accounts in which the cluster may own something: the
// destinations', whoever keeps their roles now, and those of trust.accounts.
// Accounts that the policy mentions no more are not among them.
func RemovalTargets(p *policy.Policy, issuer policy.Issuer) []Target {
	var targets []Target
	add := func(partition, account, region string) {
		known := slices.ContainsFunc(targets, func(t Target) bool { return t.Account == account })
		if !known {
			targets = append(targets, Target{
				Account: account, Region: region, Path: p.RolePath(), Provider: issuer.ProviderARN(partition, account),
			})
		}
	}
	for _, d := range p.Destinations {
		add(d.Workspace.Partition, d.Workspace.Account, d.Workspace.Region)
	}
	for _, a := range p.Trust.Accounts {
		for _, d := range p.Destinations {
			if a.SyncRole.IsZero() || a.SyncRole.Partition == d.Workspace.Partition {
				add(d.Workspace.Partition, a.ID, d.Workspace.Region)
				break
			}
		}
	}
	return targets
}

// Remove deletes all that the cluster owns at the [RemovalTargets], as it was
// found there: its roles, and then its provider, unless a role that stays names
// it. Deleting a provider that is in use would shut out whoever uses it.
func Remove(from *policy.Policy, issuer policy.Issuer, accounts map[string]Account) Plan {
	p := newPlanner(Input{Policy: from, Issuer: issuer})
	for _, target := range RemovalTargets(from, issuer) {
		p.remove(target, accounts[target.Account])
	}
	return p.plan
}

func (p *planner) remove(target Target, found Account) {
	if found.Problem != "" {
		p.refuse(target.Provider, found.Problem)
		return
	}
	gone := map[policy.ARN]bool{}
	for _, r := range found.Orphans {
		if !Owned(r.Tags, p.plan.Owner) {
			p.note(target.Account, r.ARN.String(), "lies on the cluster's path, but was not made by sync: left as it is")
			continue
		}
		gone[r.ARN] = true
		base := Change{Account: target.Account, Resource: r.ARN, Owner: p.plan.Owner, Destination: r.Tags[TagDestination]}
		for _, step := range []struct {
			call   Call
			reason string
		}{{DeletePermissions, "a role with a policy cannot be deleted"}, {DeleteRole, "the cluster owns it"}} {
			c := base
			c.Call, c.Reason = step.call, step.reason
			p.plan.Changes = append(p.plan.Changes, c)
		}
	}
	if found.Provider == nil {
		return
	}
	stay := slices.DeleteFunc(slices.Clone(found.References), func(r policy.ARN) bool { return gone[r] })
	names := make([]string, 0, len(stay))
	for _, r := range stay {
		names = append(names, r.String())
	}
	switch {
	case !Owned(found.Provider.Tags, p.plan.Owner):
		p.note(target.Account, target.Provider.String(), "was not made by sync of this cluster: left as it is")
	case found.ReferencesProblem != "":
		p.refuse(target.Provider, fmt.Sprintf("who else uses it cannot be seen (%s), so it is left; delete it by hand: "+
			"aws iam delete-open-id-connect-provider --open-id-connect-provider-arn '%s'", found.ReferencesProblem, target.Provider))
	case len(stay) > 0:
		p.note(target.Account, target.Provider.String(), "is left, because roles that stay trust it: "+strings.Join(names, ", "))
	default:
		p.plan.Changes = append(p.plan.Changes, Change{
			Call:     DeleteProvider,
			Account:  target.Account,
			Resource: target.Provider,
			Owner:    p.plan.Owner,
			Last:     true,
			Reason:   "the cluster owns it, and no role that stays names it",
		})
	}
}
