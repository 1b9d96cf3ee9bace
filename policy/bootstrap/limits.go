package bootstrap

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Limits of AWS are checked before anything is made: what AWS refuses half-way leaves
// an account with a part of the things.

// WorkspaceQuota is how many workspaces AMP lets an account have in a region, unless the
// quota was raised.
const WorkspaceQuota = 25

// maxPath is IAM's limit on the path of a role or policy, in characters.
const maxPath = 512

// longIDs returns workspaces as AMP will name them, by the placeholders of the policy:
// how long a document becomes is known before there is a workspace.
func longIDs(p *policy.Policy) map[string]policy.Workspace {
	ids := map[string]policy.Workspace{}
	for i, d := range p.Destinations {
		if d.Workspace.IsNew() {
			w := d.Workspace
			w.Resource = fmt.Sprintf("workspace/ws-%08x-%04x-0000-0000-000000000000", i, i)
			ids[d.Workspace.String()] = w
		}
	}
	return ids
}

// workspaceQuota refuses new workspaces that a region has no room for.
func (p *planner) workspaceQuota(found []FoundWorkspace) {
	made, existing := map[string]int{}, map[string]int{}
	for _, c := range p.plan.Changes {
		if c.Call == plan.CreateWorkspace {
			made[c.Resource.Region]++
		}
	}
	for _, f := range found {
		existing[f.ARN.Region]++
	}
	for _, region := range slices.Sorted(maps.Keys(made)) {
		if problem := p.central.overQuota(region, existing[region], made[region]); problem != "" {
			p.addRefusal("region "+region, problem)
		}
	}
}

// overQuota says why a region takes no such number of new workspaces; empty: it does.
func (c Central) overQuota(region string, existing, made int) string {
	if existing+made <= c.workspaceQuota {
		return ""
	}
	return fmt.Sprintf(
		"account %s has %d workspaces in %s, %d are to be made, and its quota is %d; let several destinations name one workspace, "+
			"or raise the quota \"Workspaces per Region per account\" of AMP and tell bootstrap with --workspace-quota",
		c.Account, existing, region, made, c.workspaceQuota)
}

// limits refuses the documents that IAM would find too long.
func (p *planner) limits() {
	for _, change := range p.plan.Changes {
		problem := ""
		switch change.Call {
		case plan.CreatePolicy, plan.UpdatePolicy:
			problem = p.central.boundTooLong(p.central.finalBound)
		case plan.CreateRole, plan.UpdateTrust:
			problem = trustTooLong(*change.Trust)
		case plan.PutPermissions:
			problem = p.central.permissionsTooLong()
		}
		if problem != "" {
			p.addRefusal(change.Resource.String(), problem)
		}
	}
}

func (c Central) boundTooLong(d policy.Document) string {
	n, names, actions := len(d.String()), 0, "aps:RemoteWrite"
	for _, s := range d.Statement {
		names += len(s.Resource)
		if slices.Contains(s.Action, policy.AccessQuery.Actions()[0]) {
			actions = "aps:RemoteWrite, " + strings.Join(policy.AccessQuery.Actions(), ", ")
		}
	}
	if n <= policy.MaxManagedPolicy {
		return ""
	}
	return fmt.Sprintf(
		"the boundary names %d workspaces and roles and has %d characters, IAM takes %d; make a policy of your own that allows "+
			"%s on arn:%s:aps:*:%s:workspace/* (and sts:AssumeRole on the roles under assumeRole) and name it as "+
			"trust.permissionsBoundary, or divide the destinations over several accounts",
		names, n, policy.MaxManagedPolicy, actions, c.Provider.Partition, c.Account)
}

func trustTooLong(d policy.Document) string {
	if n := len(d.String()); n > plan.TrustQuota {
		return fmt.Sprintf(
			"its trust document has %d characters, IAM takes %d; take away statements that others added (--prune-trust), or give the API "+
				"server a shorter --service-account-issuer", n, plan.TrustQuota)
	}
	return ""
}

func (c Central) permissionsTooLong() string {
	if n := len(c.Sync.Permissions.String()); n > policy.MaxInlinePolicies {
		return fmt.Sprintf(
			"its permissions have %d characters, IAM takes %d; they name sync's role in each other account: divide the accounts over "+
				"several policies, each with a cluster.name and a sync of its own",
			n, policy.MaxInlinePolicies)
	}
	return ""
}

// CheckLimits returns what AWS would refuse of a configuration or script that makes
// everything. Where AWS is asked, [Compute] refuses it.
func (c Central) CheckLimits() error {
	var errs []error
	made := map[string]int{}
	for _, w := range c.Workspaces {
		if w.New {
			made[w.ARN.Region]++
		}
	}
	for _, region := range slices.Sorted(maps.Keys(made)) {
		if problem := c.overQuota(region, 0, made[region]); problem != "" {
			errs = append(errs, errors.New(problem))
		}
	}
	if !c.Boundary.IsZero() {
		// The placeholders stay, and become whole ARNs.
		bound := policy.Document{Version: c.Bound.Version, Statement: slices.Clone(c.Bound.Statement)}
		for i, s := range bound.Statement {
			bound.Statement[i].Resource = slices.Clone(s.Resource)
			for j, resource := range s.Resource {
				if long, found := c.longIDs[resource]; found {
					bound.Statement[i].Resource[j] = long.String()
				}
			}
		}
		if problem := c.boundTooLong(bound); problem != "" {
			errs = append(errs, fmt.Errorf("%s: %s", c.Boundary, problem))
		}
	}
	if !c.Provider.IsZero() {
		for _, problem := range []string{trustTooLong(c.Sync.Trust), c.permissionsTooLong()} {
			if problem != "" {
				errs = append(errs, fmt.Errorf("%s: %s", c.Sync.ARN, problem))
			}
		}
	}
	return errors.Join(errs...)
}
