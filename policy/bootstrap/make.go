package bootstrap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Found is what there is in the account.
type Found struct {
	// Workspaces of the regions that the account's destinations name.
	Workspaces []FoundWorkspace
	Provider   *plan.Provider
	// Boundary is nil where there is none.
	Boundary *plan.ManagedPolicy
	// Role is nil where sync has none.
	Role *plan.Role
}

// FoundWorkspace is a workspace as AMP describes it.
type FoundWorkspace struct {
	ARN                     policy.Workspace
	Alias, Endpoint, Status string
	Tags                    map[string]string
}

// The workspaces that are there already, or were made before, by the ARN that
// the policy has for them.
func (c Central) existing(found []FoundWorkspace) map[string]FoundWorkspace {
	existing := map[string]FoundWorkspace{}
	for _, w := range c.Workspaces {
		for _, f := range found {
			ours := plan.Owned(f.Tags, c.Owner) && f.Tags[plan.TagDestination] == w.Destination
			if (!w.New && f.ARN == w.ARN) || (w.New && f.ARN.Region == w.ARN.Region && f.Alias == w.Alias && ours) {
				existing[w.ARN.String()] = f
			}
		}
	}
	return existing
}

// Made are the workspaces that stand for the policy's placeholders by now.
func (c Central) Made(found []FoundWorkspace) map[string]policy.Workspace {
	made := map[string]policy.Workspace{}
	for placeholder, f := range c.existing(found) {
		made[placeholder] = f.ARN
	}
	return made
}

// Make compares the account with what it needs. While a workspace is yet to be
// made, documents name its placeholder: they are right once it is made and its
// ARN is in the policy, by [Resolve].
func Make(c Central, found Found) plan.Plan {
	m := &making{central: c, plan: plan.Plan{
		Cluster: c.Cluster, Issuer: c.Issuer, Owner: c.Owner,
		Changes: []plan.Change{}, Refusals: []plan.Finding{}, Notes: []plan.Finding{},
	}}
	m.workspaces(found.Workspaces)
	if c.Provider.IsZero() {
		m.note(c.Account, "the policy gives sync nothing to do here: whoever keeps provider and roles needs no more of bootstrap (ampbridge plan -o terraform writes them)")
		return m.plan
	}
	m.provider(found.Provider)
	if !c.Boundary.IsZero() {
		m.boundary(found.Boundary)
	}
	m.role(found.Role)
	return m.plan
}

type making struct {
	central Central
	plan    plan.Plan
}

func (m *making) note(about, message string) {
	m.plan.Notes = append(m.plan.Notes, plan.Finding{Account: m.central.Account, About: about, Message: message})
}

func (m *making) refuse(about, message string) {
	m.plan.Refusals = append(m.plan.Refusals, plan.Finding{Account: m.central.Account, About: about, Message: message})
}

func (m *making) change(call plan.Call, resource policy.ARN, reason string, values func(*plan.Change)) {
	c := plan.Change{Call: call, Account: m.central.Account, Resource: resource, Owner: m.central.Owner, Reason: reason}
	values(&c)
	m.plan.Changes = append(m.plan.Changes, c)
}

func (m *making) workspaces(found []FoundWorkspace) {
	existing := m.central.existing(found)
	for _, w := range m.central.Workspaces {
		about := w.ARN.String()
		f, exists := existing[about]
		namesake := slices.IndexFunc(found, func(f FoundWorkspace) bool { return f.ARN.Region == w.ARN.Region && f.Alias == w.Alias })
		switch {
		case exists && w.New:
			m.note(f.ARN.String(), fmt.Sprintf("was made before for destination %s: write it into the policy instead of %s", w.Destination, about))
		case exists:
		case !w.New:
			m.refuse(about, fmt.Sprintf("destination %s: there is no such workspace; to have one made write workspace/%s into the policy", w.Destination, policy.NewWorkspace))
		case namesake >= 0:
			m.refuse(about, fmt.Sprintf("destination %s: there is a workspace of the alias %q already, %s, which was not made for it: write its ARN into the policy, or choose another alias",
				w.Destination, w.Alias, found[namesake].ARN))
		default:
			m.change(plan.CreateWorkspace, w.ARN.ARN, "destination "+w.Destination+" is to get a workspace", func(c *plan.Change) {
				c.Destination, c.Description, c.Tags = w.Destination, w.Alias, w.Tags
				c.Differences = append([]plan.Difference{{Field: "alias", Becomes: w.Alias}, {Field: "region", Becomes: w.ARN.Region}}, tagDifferences(w.Tags)...)
			})
		}
	}
}

func (m *making) provider(found *plan.Provider) {
	c := m.central
	add := func(audience string) {
		m.change(plan.AddAudience, c.Provider, "the provider is to take this audience too", func(change *plan.Change) {
			change.Audience, change.Differences = audience, []plan.Difference{{Field: "audience", Becomes: audience}}
		})
	}
	if found == nil {
		m.change(plan.CreateProvider, c.Provider, "the account does not know the cluster's issuer", func(change *plan.Change) {
			change.Audience, change.Thumbprints, change.Tags = c.Audiences[0], c.Thumbprints, c.Tags
			change.Differences = append([]plan.Difference{{Field: "audience", Becomes: c.Audiences[0]}}, tagDifferences(c.Tags)...)
		})
		for _, audience := range c.Audiences[1:] {
			add(audience)
		}
		return
	}
	owner := found.Tags[plan.TagOwner]
	if owner != "" && owner != c.Owner {
		m.refuse(c.Provider.String(), fmt.Sprintf("belongs to cluster %q, which has the same issuer: a token of either would be taken for the other's; give the API server an issuer of its own", found.Tags[plan.TagCluster]))
		return
	}
	for _, audience := range c.Audiences {
		switch {
		case slices.Contains(found.Audiences, audience):
		case owner == "":
			m.refuse(c.Provider.String(), fmt.Sprintf("was not made by ampbridge and does not take the audience %q; add it: aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn '%s' --client-id '%s'",
				audience, c.Provider, audience))
			return
		default:
			add(audience)
		}
	}
	if owner == "" {
		m.note(c.Provider.String(), "was not made by ampbridge: used as it is")
	}
}

func (m *making) boundary(found *plan.ManagedPolicy) {
	c := m.central
	change := func(call plan.Call, reason, was string) {
		m.change(call, c.Boundary, reason, func(change *plan.Change) {
			change.Permissions, change.Tags = &c.Bound, c.Tags
			change.Description = "The most that roles made by ampbridge's sync can ever do"
			change.Differences = statementDifferences("boundary", was, c.Bound)
			if call == plan.CreatePolicy {
				change.Differences = append(change.Differences, tagDifferences(c.Tags)...)
			}
		})
	}
	if found == nil {
		change(plan.CreatePolicy, "the account has no such policy to bound sync's roles", "")
		return
	}
	is, err := policy.ParseDocument(found.Document)
	switch {
	case err == nil && policy.Equal(is, c.Bound):
	case plan.Owned(found.Tags, c.Owner):
		change(plan.UpdatePolicy, "the boundary differs from what the policy needs", found.Document)
	case err == nil && contains(is, c.Bound):
		m.note(c.Boundary.String(), "was not made for this cluster, and allows what its roles need: used as it is")
	default:
		m.refuse(c.Boundary.String(), fmt.Sprintf("was not made for this cluster, and its roles need %s; add these statements to it, or name another policy as trust.permissionsBoundary", c.Bound))
	}
}

// contains tells whether a boundary allows in so many words what another does,
// and nothing but the actions that a boundary is for.
func contains(is, wanted policy.Document) bool {
	allowed := func(action, resource string) bool {
		return slices.ContainsFunc(is.Statement, func(s policy.Statement) bool {
			return s.Effect == "Allow" && len(s.Condition) == 0 && slices.Contains(s.Action, action) &&
				(slices.Contains(s.Resource, resource) || slices.Contains(s.Resource, "*"))
		})
	}
	for _, s := range is.Statement {
		beyond := func(action string) bool { return action != "aps:RemoteWrite" && action != "sts:AssumeRole" }
		if s.Effect != "Allow" || len(s.NotAction) > 0 || slices.ContainsFunc(s.Action, beyond) {
			return false
		}
	}
	for _, s := range wanted.Statement {
		for _, action := range s.Action {
			for _, resource := range s.Resource {
				if !allowed(action, resource) {
					return false
				}
			}
		}
	}
	return true
}

func (m *making) role(found *plan.Role) {
	c, want := m.central, m.central.Sync
	trust := func(call plan.Call, reason, was string) {
		m.change(call, want.ARN, reason, func(change *plan.Change) {
			change.Trust = &want.Trust
			change.Differences = statementDifferences("trust", was, want.Trust)
			if call == plan.CreateRole {
				change.Tags, change.Description, change.MaxSessionSeconds = c.Tags, want.Description, 3600
				change.Differences = append(change.Differences, tagDifferences(c.Tags)...)
			}
		})
	}
	permissions := func(reason, was string) {
		m.change(plan.PutPermissions, want.ARN, reason, func(change *plan.Change) {
			change.Permissions = &want.Permissions
			change.Differences = statementDifferences("permission", was, want.Permissions)
		})
	}
	if found == nil {
		trust(plan.CreateRole, "sync has no role here", "")
		permissions("the role has no permission document", "")
		return
	}
	if !plan.Owned(found.Tags, c.Owner) || found.ARN != want.ARN {
		m.refuse(want.ARN.String(), fmt.Sprintf("the name is taken by %s, which bootstrap did not make for this cluster (tag %s), and names are unique whatever their path; delete that role, or name another for this account as syncRole under trust.accounts",
			found.ARN, plan.TagOwner))
		return
	}
	if is, err := policy.ParseDocument(found.Trust); err != nil || !policy.Equal(is, want.Trust) {
		trust(plan.UpdateTrust, "the trust document differs", found.Trust)
	}
	if is, err := policy.ParseDocument(found.Permissions); err != nil || !policy.Equal(is, want.Permissions) {
		permissions("the permission document differs", found.Permissions)
	}
}

// statementDifferences are the statements that go and come, each in a line: a
// whole document in one nobody reads.
func statementDifferences(field, was string, becomes policy.Document) []plan.Difference {
	var list []plan.Difference
	is, err := policy.ParseDocument(was)
	if err != nil && was != "" {
		list = append(list, plan.Difference{Field: field, Was: was})
	}
	same := func(a, b policy.Statement) bool {
		return policy.Equal(policy.Document{Statement: []policy.Statement{a}}, policy.Document{Statement: []policy.Statement{b}})
	}
	for _, s := range is.Statement {
		if !slices.ContainsFunc(becomes.Statement, func(o policy.Statement) bool { return same(s, o) }) {
			list = append(list, plan.Difference{Field: field, Was: encode(s)})
		}
	}
	for _, s := range becomes.Statement {
		if !slices.ContainsFunc(is.Statement, func(o policy.Statement) bool { return same(s, o) }) {
			list = append(list, plan.Difference{Field: field, Becomes: encode(s)})
		}
	}
	return list
}

func tagDifferences(tags map[string]string) []plan.Difference {
	var list []plan.Difference
	for k, v := range tags {
		list = append(list, plan.Difference{Field: "tag " + k, Becomes: v})
	}
	slices.SortFunc(list, func(a, b plan.Difference) int { return strings.Compare(a.Field, b.Field) })
	return list
}
