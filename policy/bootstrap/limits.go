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

// The limits of AWS are checked before anything is created. If AWS refused something half-way,
// the account would have only some of the resources.

// WorkspaceQuota is the number of workspaces that AMP allows an account in a region, unless the
// quota was raised.
const WorkspaceQuota = 25

// maxPath is IAM's limit on the path of a role or policy, in characters.
const maxPath = 512

// longIDs returns workspaces with ids as long as AMP's, by the placeholders of the policy. So
// the final length of a document is known before the workspaces exist.
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

// workspaceQuota refuses new workspaces that would exceed a region's quota.
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

// overQuota returns why a region cannot have that number of new workspaces; empty if it can.
func (c Central) overQuota(region string, existing, made int) string {
	if existing+made <= c.workspaceQuota {
		return ""
	}
	return fmt.Sprintf(
		"account %s has %d workspaces in %s, %d new ones are needed, and its quota is %d; let several destinations "+
			"name one workspace, "+
			"or raise the quota \"Workspaces per Region per account\" of AMP and tell bootstrap with --workspace-quota",
		c.Account, existing, region, made, c.workspaceQuota)
}

// limits refuses documents that are too long for IAM.
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
		"the boundary names %d workspaces and roles and has %d characters, IAM accepts %d; create a policy of your own "+
			"that allows %s on arn:%s:aps:*:%s:workspace/* (and sts:AssumeRole on the roles under assumeRole) and name it as "+
			"trust.permissionsBoundary, or divide the destinations over several accounts",
		names, n, policy.MaxManagedPolicy, actions, c.Provider.Partition, c.Account)
}

func trustTooLong(d policy.Document) string {
	if n := len(d.String()); n > plan.TrustQuota {
		return fmt.Sprintf(
			"its trust document has %d characters, IAM accepts %d; remove statements that others added (--prune-trust), or "+
				"give the API server a shorter --service-account-issuer", n, plan.TrustQuota)
	}
	return ""
}

func (c Central) permissionsTooLong() string {
	if n := len(c.Sync.Permissions.String()); n > policy.MaxInlinePolicies {
		return fmt.Sprintf(
			"its permissions have %d characters, IAM accepts %d; they name sync's role in each other account: divide the "+
				"accounts over several policies, each with its own cluster.name and its own sync",
			n, policy.MaxInlinePolicies)
	}
	return ""
}

// CheckLimits returns an error for limits that would make AWS refuse a configuration or script
// that creates everything. If bootstrap reads the account, [Compute] refuses them.
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
		// The placeholders stay in the text. They will become complete ARNs.
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
