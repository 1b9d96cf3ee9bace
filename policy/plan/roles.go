package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// wantedRole is a role that the policy wants, together with what exists of it.
type wantedRole struct {
	arn         policy.ARN
	destination policy.Destination
	// subjects are the subjects that the role must trust; if there are none, the role is closed.
	subjects []policy.Subject
	// pruned counts the subjects that it loses because they are missing.
	pruned int

	found  Role
	exists bool
	// current is the role's trust document if it parses; trusted lists its subjects.
	current  policy.Document
	readable bool
	trusted  []policy.Subject

	tags                 map[string]string
	description, lacking string
}

func (p *planner) perServiceAccount() bool {
	return p.Policy.Trust.RoleScope == policy.RoleScopeServiceAccount
}

// rolesOf returns the roles that d needs or has: one, or one per subject.
func (p *planner) rolesOf(d policy.Destination, provider policy.ARN, found Account) []wantedRole {
	if p.perServiceAccount() {
		return p.subjectsRoles(d, found)
	}
	return p.destinationsRole(d, provider, found)
}

func (p *planner) inspectRole(arn policy.ARN, d policy.Destination, found Account) wantedRole {
	r := wantedRole{arn: arn, destination: d}
	r.found, r.exists = found.Roles[arn.RoleName()]
	current, err := policy.ParseDocument(r.found.Trust)
	r.current, r.readable, r.trusted = current, err == nil, p.trusted(current)
	return r
}

func (p *planner) destinationsRole(d policy.Destination, provider policy.ARN, found Account) []wantedRole {
	r := p.inspectRole(p.Policy.Role(d), d, found)
	if r.exists && !p.owned(r.arn, r.found) {
		p.wanting(d, p.plan.Refusals[len(p.plan.Refusals)-1].Message)
		return nil
	}
	_, former := p.trustees(d, found)
	length := 0 // length of a document that is too long; all newest subjects are refused with it
	fits := func(kept []policy.Subject, s policy.Subject) bool {
		if length == 0 {
			if n := len(p.trust(provider, append(slices.Clip(kept), s)).String()); n > p.TrustQuota {
				length = n
			}
		}
		return length == 0
	}
	subjects, refused, pruned := p.subjects(d, r.trusted, former, fits)
	if length > 0 {
		p.refuse(r.arn, fmt.Sprintf(
			"the trust document is full (%d characters, the quota is %d); not trusted are the newest: %s; set "+
				"trust.roleScope: serviceAccount, which gives each service account its own role, or raise the account's quota "+
				"\"Role trust policy length\" and tell sync with --trust-quota, or name the workspace in a second destination, "+
				"which has its own role, and divide the grants",
			length,
			p.TrustQuota,
			joined(refused),
		))
		p.refuseFull(d, refused, "there is no space for newer service accounts in the trust document of "+r.arn.String())
	}
	if !r.exists && len(subjects) > 0 && !p.takeRole() {
		p.overRoles(d, subjects)
		subjects = nil
	}
	p.statusOf(d, r.trusted, subjects)
	if len(subjects) == 0 && !r.exists {
		if !p.waits(d) {
			p.note(
				r.arn.Account,
				r.arn.String(),
				"destination "+d.Name+": no service account that the policy grants exists yet, so no role is created",
			)
		}
		return nil
	}
	r.subjects, r.pruned, r.tags = subjects, pruned, p.tags(TagDestination, d.Name)
	r.description = fmt.Sprintf("%s of cluster %s %s %s; kept by ampbridge", who(d), p.Policy.Cluster.Name, does(d), d.Workspace.ID())
	r.lacking = "destination " + d.Name + " has no role"
	return []wantedRole{r}
}

// who names the programs that assume the roles of d, and does what they do with the workspace. Both
// texts are parts of the descriptions of roles, which must not change.
func who(d policy.Destination) string {
	if d.Writes() {
		return "Prometheus"
	}
	return "A reader"
}

func does(d policy.Destination) string {
	if d.Writes() {
		return "writes to"
	}
	return "queries"
}

// subjectsRoles returns a role for each subject that d must trust, or trusts now.
func (p *planner) subjectsRoles(d policy.Destination, found Account) []wantedRole {
	own, former := p.trustees(d, found)
	fits := func(_ []policy.Subject, s policy.Subject) bool {
		_, exists := found.Roles[p.Policy.RoleFor(d, s).RoleName()]
		return exists || p.takeRole()
	}
	kept, refused, _ := p.subjects(d, own, former, fits)
	if len(refused) > 0 {
		p.overRoles(d, refused)
	}
	var list []wantedRole
	var trusted []policy.Subject
	for _, s := range distinct(slices.Concat(own, kept)) {
		r := p.inspectRole(p.Policy.RoleFor(d, s), d, found)
		wants := slices.Contains(kept, s)
		if r.exists && !p.owned(r.arn, r.found) {
			p.setStatus(s, d, Refused, false, "not trusted for destination "+d.Name+": "+p.plan.Refusals[len(p.plan.Refusals)-1].Message)
			continue
		}
		if wants {
			r.subjects = []policy.Subject{s}
			trusted = append(trusted, s)
		} else if p.pruned[s] {
			r.pruned = 1
		}
		r.tags = p.tags(TagDestination, d.Name, TagNamespace, s.Namespace, TagServiceAccount, s.ServiceAccount)
		r.description = fmt.Sprintf("%s of cluster %s, service account %s of namespace %s, %s %s; kept by ampbridge",
			who(d), p.Policy.Cluster.Name, s.ServiceAccount, s.Namespace, does(d), d.Workspace.ID())
		r.lacking = s.String() + " has no role for destination " + d.Name
		list = append(list, r)
	}
	p.statusOf(d, own, trusted)
	return list
}

// trustees returns the subjects that roles of this cluster trust for d: own for roles of the
// current scope, former for roles of the other scope.
func (p *planner) trustees(d policy.Destination, found Account) (own, former []policy.Subject) {
	for _, r := range found.all() {
		if !Owned(r.Tags, p.plan.Owner) {
			continue
		}
		is, err := policy.ParseDocument(r.Trust)
		if err != nil {
			continue // this document is replaced, and then trusts only the wanted subjects
		}
		for _, s := range p.trusted(is) {
			switch r.ARN {
			case p.Policy.RoleFor(d, s):
				own = append(own, s)
			case p.formerRole(d, s):
				former = append(former, s)
			}
		}
	}
	return distinct(own), distinct(former)
}

// formerRole returns the role that s would have with the other trust.roleScope.
func (p *planner) formerRole(d policy.Destination, s policy.Subject) policy.ARN {
	if p.perServiceAccount() {
		return p.Policy.Role(d)
	}
	return p.Policy.ServiceAccountRole(d, s)
}

// closeRole closes a role of this cluster that is not used any more. A role of the other
// trust.roleScope is closed last, after its replacements exist. But subjects that the policy
// does not grant are removed first.
func (p *planner) closeRole(found Role, provider policy.ARN) (first, last []Change) {
	named := slices.ContainsFunc(p.Policy.Destinations, func(d policy.Destination) bool {
		return found.ARN == d.Role || found.ARN == d.AssumeRole
	})
	within := strings.HasPrefix(found.ARN.Resource, "role"+p.Policy.RolePath())
	if named || !within || !Owned(found.Tags, p.plan.Owner) {
		return nil, nil
	}
	is, err := policy.ParseDocument(found.Trust)
	trusted := p.trusted(is)
	var moving []policy.Subject
	for _, d := range p.Policy.Destinations {
		for _, s := range trusted {
			if err == nil && Managed(p.Policy, d) && found.ARN == p.formerRole(d, s) && p.mayKeep(s, d) {
				moving = append(moving, s)
			}
		}
	}
	change := func(to []policy.Subject, reason string) []Change {
		document := p.trust(provider, to)
		if err == nil && policy.Equal(is, document) {
			return nil
		}
		return []Change{
			{
				Call:        UpdateTrust,
				Account:     found.ARN.Account,
				Resource:    found.ARN,
				Owner:       p.plan.Owner,
				Destination: found.Tags[TagDestination],
				Reason:      reason,
				Differences: append(
					subjectDifferences(trusted, to),
					Difference{"trust document", plainText(found.Trust), document.String()},
				),
				Trust: &document,
			},
		}
	}
	if len(moving) == 0 {
		return change(nil, "no granted service account uses the role any more, so it is closed"), nil
	}
	last = change(nil, "trust.roleScope has changed: other roles replace it, so it is closed")
	for i := range last {
		last[i].Last = true
	}
	return change(moving, "trust.roleScope has changed, and the role trusts subjects that do not move to other "+
		"roles"), last
}

// countHeadroom starts to count an account's headroom; nil means that there is no limit.
func (p *planner) countHeadroom(headroom *Headroom) {
	const endless = 1 << 30
	p.headroom = Headroom{Roles: endless, Providers: endless}
	if headroom != nil {
		p.headroom = *headroom
	}
}

// takeRole reserves one more role. It returns false if the quota is used up.
func (p *planner) takeRole() bool {
	if p.headroom.Roles <= 0 {
		return false
	}
	p.headroom.Roles--
	return true
}

func (p *planner) overRoles(d policy.Destination, refused []policy.Subject) {
	fix := "raise its quota \"Roles per account\", or delete unused roles"
	if p.perServiceAccount() {
		fix += ", or set trust.roleScope: destination, so that a destination has one role"
	}
	p.refuse(
		d.Workspace.ARN,
		fmt.Sprintf("account %s has no quota left for the roles of destination %s; not trusted are the newest: %s; %s",
			d.Workspace.Account, d.Name, joined(refused), fix),
	)
	p.refuseFull(d, refused, "account "+d.Workspace.Account+" has no quota left for more roles")
}

// refuseFull sets the status of subjects that a quota keeps out.
func (p *planner) refuseFull(d policy.Destination, refused []policy.Subject, cause string) {
	for _, s := range refused {
		p.setStatus(
			s,
			d,
			QuotaExceeded,
			false,
			"not trusted for destination "+d.Name+": "+cause+"; the cluster admin can raise the account's quota, or "+
				"divide the grants",
		)
	}
}

// providerRefused refuses a provider if the account's quota is used up.
func (p *planner) providerRefused(arn policy.ARN) bool {
	if p.headroom.Providers > 0 {
		return false
	}
	p.refuse(arn, fmt.Sprintf("account %s has no quota left for another OIDC provider, so no new service account is "+
		"trusted in it; raise its quota \"OpenId connect providers per account\" and tell sync with --provider-quota, or "+
		"delete providers of clusters that are gone", arn.Account))
	return true
}

// sameThumbprints compares two sets, so order and case do not count.
func sameThumbprints(a, b []string) bool {
	fold := func(list []string) []string {
		folded := make([]string, len(list))
		for i, t := range list {
			folded[i] = strings.ToLower(t)
		}
		slices.Sort(folded)
		return slices.Compact(folded)
	}
	return slices.Equal(fold(a), fold(b))
}

func joined(subjects []policy.Subject) string {
	names := make([]string, len(subjects))
	for i, s := range subjects {
		names[i] = s.String()
	}
	return strings.Join(names, ", ")
}
