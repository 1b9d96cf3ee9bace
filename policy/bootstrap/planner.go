package bootstrap

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Found is what exists in an account.
type Found struct {
	// Workspaces are in the regions of the account's destinations.
	Workspaces []FoundWorkspace
	Provider   *plan.Provider
	// Boundary is nil if there is none.
	Boundary *plan.ManagedPolicy
	// Role is nil if sync has none.
	Role *plan.Role
}

// FoundWorkspace is a workspace as AMP describes it.
type FoundWorkspace struct {
	ARN                     policy.Workspace
	Alias, Endpoint, Status string
	Tags                    map[string]string
}

// made returns the workspaces that an earlier run created for w: those with the owner's
// and the destination's tag. The alias does not count, because each run can set another one.
func (c Central) made(w Workspace, found []FoundWorkspace) []FoundWorkspace {
	var list []FoundWorkspace
	for _, f := range found {
		if f.ARN.Region == w.ARN.Region && plan.Owned(f.Tags, c.Owner) && f.Tags[plan.TagDestination] == w.Destination {
			list = append(list, f)
		}
	}
	return list
}

// Made returns the workspaces that earlier runs created for the policy's placeholders, by
// placeholder. It leaves out a destination with two workspaces, which [Compute] refuses.
func (c Central) Made(found []FoundWorkspace) map[string]FoundWorkspace {
	made := map[string]FoundWorkspace{}
	for _, w := range c.Workspaces {
		if f := c.Own(w, found); w.New && !f.ARN.IsZero() {
			made[w.ARN.String()] = f
		}
	}
	return made
}

// Own returns the one workspace that bootstrap created for w; zero if there is none.
func (c Central) Own(w Workspace, found []FoundWorkspace) FoundWorkspace {
	list := c.made(w, found)
	if !w.New {
		list = slices.DeleteFunc(list, func(f FoundWorkspace) bool { return f.ARN != w.ARN })
	}
	if len(list) != 1 || list[0].Status == creationFailed {
		return FoundWorkspace{}
	}
	return list[0]
}

// creationFailed is the status of a workspace that AMP could not create.
const creationFailed = "CREATION_FAILED"

// MadeBefore returns the note about a workspace that an earlier run created for w.
func (c Central) MadeBefore(w Workspace, f FoundWorkspace) plan.Finding {
	message := fmt.Sprintf("was created before for destination %s: write it into the policy instead of "+
		"%s", w.Destination, w.ARN)
	if w.AliasGiven && w.Alias != f.Alias {
		message += fmt.Sprintf("; its alias stays %q", f.Alias)
	}
	return plan.Finding{Account: c.Account, About: f.ARN.String(), Message: message}
}

// Compute returns the changes from what exists in the account to what it needs.
// Until a workspace exists, documents contain its placeholder. [Resolve] replaces the
// placeholder when the ARN is known.
func Compute(c Central, found Found) plan.Plan {
	p := &planner{central: c, plan: plan.Plan{
		Cluster: c.Cluster, Issuer: c.Issuer, Owner: c.Owner,
		Changes: []plan.Change{}, Refusals: []plan.Finding{}, Notes: []plan.Finding{},
	}}
	p.workspaces(found.Workspaces)
	p.workspaceQuota(found.Workspaces)
	if c.Provider.IsZero() {
		p.addNote(
			c.Account,
			"the policy gives sync nothing to do here: provider and roles need nothing more from bootstrap (ampbridge plan -o "+
				"terraform writes them)",
		)
		return p.plan
	}
	p.provider(found.Provider)
	if !c.Boundary.IsZero() {
		p.boundary(found.Boundary)
	}
	p.role(found.Role)
	p.limits()
	return p.plan
}

// planner collects the changes, refusals and notes of a plan.
type planner struct {
	central Central
	plan    plan.Plan
}

func (p *planner) addNote(resource, message string) {
	p.plan.Notes = append(p.plan.Notes, plan.Finding{Account: p.central.Account, About: resource, Message: message})
}

func (p *planner) addRefusal(resource, message string) {
	p.plan.Refusals = append(p.plan.Refusals, plan.Finding{Account: p.central.Account, About: resource, Message: message})
}

func (p *planner) addChange(call plan.Call, resource policy.ARN, reason string, values func(*plan.Change)) {
	c := plan.Change{Call: call, Account: p.central.Account, Resource: resource, Owner: p.central.Owner, Reason: reason}
	values(&c)
	p.plan.Changes = append(p.plan.Changes, c)
}

func (p *planner) workspaces(found []FoundWorkspace) {
	for _, w := range p.central.Workspaces {
		resource := w.ARN.String()
		existing := p.central.made(w, found)
		if !w.New {
			existing = slices.DeleteFunc(slices.Clone(found), func(f FoundWorkspace) bool { return f.ARN != w.ARN })
		}
		namesake := slices.IndexFunc(found, func(f FoundWorkspace) bool { return f.ARN.Region == w.ARN.Region && f.Alias == w.Alias })
		switch {
		case len(existing) > 1:
			p.addRefusal(
				resource,
				fmt.Sprintf(
					"destination %s has several workspaces that were created for it: %s; write the ARN of the one to keep into the "+
						"policy, and delete the others, with their metrics, if nothing needs them",
					w.Destination,
					arns(existing),
				),
			)
		case len(existing) == 1 && existing[0].Status == creationFailed:
			p.addRefusal(resource, fmt.Sprintf(
				"destination %s: the creation of its workspace %s failed: delete that one, and run bootstrap "+
					"again", w.Destination, existing[0].ARN))
		case len(existing) == 1:
			f := existing[0]
			if w.New {
				p.plan.Notes = append(p.plan.Notes, p.central.MadeBefore(w, f))
			}
			switch owner := f.Tags[plan.TagOwner]; {
			case plan.Owned(f.Tags, p.central.Owner):
				p.tags(plan.TagWorkspace, f.ARN.ARN, f.Tags)
			case w.Adopt && owner == "":
				p.adoptWorkspace(w, f)
			case w.Adopt:
				p.addRefusal(resource, fmt.Sprintf("belongs to cluster %q: run bootstrap without --adopt-workspace %s to "+
					"use it as it is",
					f.Tags[plan.TagCluster], w.Destination))
			}
		case !w.New:
			p.addRefusal(
				resource,
				fmt.Sprintf(
					"destination %s: there is no such workspace; to create one, write workspace/%s into the policy",
					w.Destination,
					policy.NewWorkspace,
				),
			)
		case namesake >= 0:
			p.addRefusal(
				resource,
				fmt.Sprintf(
					"destination %s: there is already a workspace with the alias %q, %s, which was not created for it: write its "+
						"ARN into the policy, or choose another alias",
					w.Destination,
					w.Alias,
					found[namesake].ARN,
				),
			)
		default:
			p.addChange(plan.CreateWorkspace, w.ARN.ARN, "destination "+w.Destination+" needs a workspace", func(c *plan.Change) {
				c.Destination, c.Description, c.Tags = w.Destination, w.Alias, w.Tags
				c.Differences = append(
					[]plan.Difference{{Field: "alias", Becomes: w.Alias}, {Field: "region", Becomes: w.ARN.Region}},
					tagDifferences(w.Tags)...)
			})
		}
	}
}

// adoptWorkspace lets the cluster take over a workspace without an owner. Its other tags stay.
func (p *planner) adoptWorkspace(w Workspace, f FoundWorkspace) {
	if n := plan.CountTags(f.Tags, w.Tags); n > policy.MaxTags {
		p.addRefusal(f.ARN.String(), plan.TooManyTags(f.Tags, n))
		return
	}
	p.addChange(plan.TagWorkspace, f.ARN.ARN, "--adopt-workspace: the workspace has no owner, so this cluster "+
		"takes it over",
		func(c *plan.Change) {
			c.Adopts, c.Tags, c.Differences = true, w.Tags, plan.TagDifferences(f.Tags, w.Tags)
		})
}

// arns returns the ARNs of workspaces, sorted, as text.
func arns(found []FoundWorkspace) string {
	var list []string
	for _, f := range found {
		list = append(list, f.ARN.String())
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// tags applies the tags that the user gave to a resource of the cluster. It keeps tags that are
// not wanted any more: they may belong to other people.
func (p *planner) tags(call plan.Call, resource policy.ARN, found map[string]string) {
	differences := plan.TagDifferences(found, p.central.extra)
	if len(differences) == 0 {
		return
	}
	if n := plan.CountTags(found, p.central.extra); n > policy.MaxTags {
		p.addRefusal(resource.String(), plan.TooManyTags(found, n))
		return
	}
	p.addChange(call, resource, "the wanted tags have changed", func(change *plan.Change) {
		change.Tags, change.Differences = maps.Clone(p.central.extra), differences
	})
}

func (p *planner) provider(found *plan.Provider) {
	c := p.central
	add := func(audience string) {
		p.addChange(plan.AddAudience, c.Provider, "the provider does not accept this audience "+
			"yet", func(change *plan.Change) {
			change.Audience, change.Differences = audience, []plan.Difference{{Field: "audience", Becomes: audience}}
		})
	}
	if found == nil {
		p.addChange(plan.CreateProvider, c.Provider, "the account has no provider for the cluster's "+
			"issuer", func(change *plan.Change) {
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
		p.addRefusal(
			c.Provider.String(),
			fmt.Sprintf(
				"belongs to cluster %q, which has the same issuer: a token of one would be accepted for the other; give the API "+
					"server its own issuer",
				found.Tags[plan.TagCluster],
			),
		)
		return
	}
	adopts := owner == "" && c.AdoptProvider
	if adopts {
		p.addChange(plan.TagProvider, c.Provider, "trust.adoptProvider: the provider has no owner, so this cluster "+
			"takes it over",
			func(change *plan.Change) {
				change.Adopts, change.Tags, change.Differences = true, c.Tags, plan.TagDifferences(found.Tags, c.Tags)
			})
	}
	for _, audience := range c.Audiences {
		switch {
		case slices.Contains(found.Audiences, audience):
		case owner == "" && !adopts:
			p.addRefusal(
				c.Provider.String(),
				fmt.Sprintf(
					"was not created by ampbridge and does not accept the audience %q; add it: aws iam "+
						"add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn '%s' --client-id '%s'",
					audience,
					c.Provider,
					audience,
				),
			)
			return
		default:
			add(audience)
		}
	}
	switch {
	case adopts:
		return
	case owner == "":
		p.addNote(c.Provider.String(), "was not created by ampbridge: used as it is")
		return
	}
	p.tags(plan.TagProvider, c.Provider, found.Tags)
}

func (p *planner) boundary(found *plan.ManagedPolicy) {
	c := p.central
	change := func(call plan.Call, reason, was string) {
		p.addChange(call, c.Boundary, reason, func(change *plan.Change) {
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
	if plan.Owned(found.Tags, c.Owner) {
		p.tags(plan.TagPolicy, c.Boundary, found.Tags)
	}
	current, err := policy.ParseDocument(found.Document)
	switch {
	case err == nil && policy.Equal(current, c.Bound):
	case plan.Owned(found.Tags, c.Owner):
		change(plan.UpdatePolicy, "the boundary differs from what the policy needs", found.Document)
	case err == nil && contains(current, c.Bound):
		p.addNote(c.Boundary.String(), "was not created for this cluster, and allows what its roles need: used as it is")
	default:
		p.addRefusal(
			c.Boundary.String(),
			fmt.Sprintf(
				"was not created for this cluster, and its roles need %s; add these statements to it, or name another "+
					"policy as trust.permissionsBoundary",
				c.Bound,
			),
		)
	}
}

// bounded are the actions that a boundary may allow.
var bounded = slices.Concat(policy.AccessWrite.Actions(), policy.AccessQuery.Actions(), policy.Values{"sts:AssumeRole"})

// contains reports whether a boundary allows everything that wanted allows, and no
// action other than those in bounded.
func contains(boundary, wanted policy.Document) bool {
	allowed := func(action, resource string) bool {
		covers := func(pattern string) bool { return policy.Glob(pattern).Match(resource) }
		return slices.ContainsFunc(boundary.Statement, func(s policy.Statement) bool {
			return s.Effect == "Allow" && len(s.Condition) == 0 && slices.Contains(s.Action, action) &&
				slices.ContainsFunc(s.Resource, covers)
		})
	}
	for _, s := range boundary.Statement {
		beyond := func(action string) bool { return !slices.Contains(bounded, action) }
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

func (p *planner) role(found *plan.Role) {
	c, want := p.central, p.central.Sync
	if found != nil && found.OwnedAt(want.ARN, c.Owner) {
		want.Trust = p.keptTrust(want, found.Trust)
	}
	trust := func(call plan.Call, reason, was string) {
		p.addChange(call, want.ARN, reason, func(change *plan.Change) {
			change.Trust = &want.Trust
			change.Differences = statementDifferences("trust", was, want.Trust)
			if call == plan.CreateRole {
				change.Tags, change.Description, change.MaxSessionSeconds = c.Tags, want.Description, 3600
				change.Differences = append(change.Differences, tagDifferences(c.Tags)...)
			}
		})
	}
	permissions := func(reason, was string) {
		p.addChange(plan.PutPermissions, want.ARN, reason, func(change *plan.Change) {
			change.Permissions = &want.Permissions
			change.Differences = statementDifferences("permission", was, want.Permissions)
		})
	}
	if found == nil {
		trust(plan.CreateRole, "sync has no role here", "")
		permissions("the role has no permission document", "")
		return
	}
	if !found.OwnedAt(want.ARN, c.Owner) {
		p.addRefusal(
			want.ARN.String(),
			fmt.Sprintf(
				"the name is taken by %s, which bootstrap did not create for this cluster (tag %s), and names are unique "+
					"whatever their path; delete that role, or name another for this account as syncRole under trust.accounts",
				found.ARN,
				plan.TagOwner,
			),
		)
		return
	}
	p.tags(plan.TagRole, want.ARN, found.Tags)
	if current, err := policy.ParseDocument(found.Trust); err != nil || !policy.Equal(current, want.Trust) {
		trust(plan.UpdateTrust, "the trust document differs", found.Trust)
	}
	if current, err := policy.ParseDocument(found.Permissions); err != nil || !policy.Equal(current, want.Permissions) {
		permissions("the permission document differs", found.Permissions)
	}
}

// keptTrust returns the trust document for the role: the wanted one, plus the
// statements that others added to the current one.
func (p *planner) keptTrust(want SyncRole, current string) policy.Document {
	trust := policy.Document{Version: want.Trust.Version, Statement: slices.Clone(want.Trust.Statement)}
	document, err := policy.ParseDocument(current)
	if err != nil || want.PruneTrust {
		return trust
	}
	for _, s := range document.Statement {
		switch {
		case s.Sid == sidPodIdentity:
			if slices.ContainsFunc(want.Trust.Statement, func(w policy.Statement) bool { return w.Sid == s.Sid }) {
				continue
			}
			p.addNote(want.ARN.String(), "still trusts EKS Pod Identity: "+encode(s)+"; --prune-trust removes it")
		case slices.ContainsFunc(want.Trust.Statement, func(w policy.Statement) bool { return w.Sid == s.Sid || sameButSid(w, s) }):
			continue // a wanted statement, or a former version of one
		default:
			p.addNote(want.ARN.String(), "its trust document has a statement that bootstrap did not write and does not change: "+encode(s)+
				"; --prune-trust removes it")
		}
		trust.Statement = append(trust.Statement, s)
	}
	return trust
}

// sameButSid reports whether two statements are equal except for their ids.
func sameButSid(a, b policy.Statement) bool {
	a.Sid, b.Sid = "", ""
	return policy.Equal(policy.Document{Statement: []policy.Statement{a}}, policy.Document{Statement: []policy.Statement{b}})
}

// statementDifferences returns the removed and the added statements, one per line,
// because a whole document in one line is hard to read.
func statementDifferences(field, was string, becomes policy.Document) []plan.Difference {
	var list []plan.Difference
	current, err := policy.ParseDocument(was)
	if err != nil && was != "" {
		list = append(list, plan.Difference{Field: field, Was: was})
	}
	same := func(a, b policy.Statement) bool { return a.Sid == b.Sid && sameButSid(a, b) }
	for _, s := range current.Statement {
		if !slices.ContainsFunc(becomes.Statement, func(o policy.Statement) bool { return same(s, o) }) {
			list = append(list, plan.Difference{Field: field, Was: encode(s)})
		}
	}
	for _, s := range becomes.Statement {
		if !slices.ContainsFunc(current.Statement, func(o policy.Statement) bool { return same(s, o) }) {
			list = append(list, plan.Difference{Field: field, Becomes: encode(s)})
		}
	}
	return list
}

func tagDifferences(tags map[string]string) []plan.Difference { return plan.TagDifferences(nil, tags) }
