package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// RemovalTargets returns all accounts in which the cluster may own something: the accounts of the
// destinations, even if others manage their roles now, and those of trust.accounts.
// It does not know accounts that the policy does not mention any more.
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

// Remove deletes everything that the cluster owns at the [RemovalTargets]: first its roles, then
// its provider. It keeps the provider if a role that stays names it, because without the provider
// the users of that role would lose access.
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
			p.note(target.Account, r.ARN.String(), "is on the cluster's path, but was not created by sync: left as it is")
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
		p.note(target.Account, target.Provider.String(), "was not created by sync of this cluster: left as it is")
	case found.ReferencesProblem != "":
		p.refuse(target.Provider, fmt.Sprintf("its other users cannot be read (%s), so it is left; delete it by hand: aws "+
			"iam delete-open-id-connect-provider --open-id-connect-provider-arn '%s'", found.ReferencesProblem, target.Provider))
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
