package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// wantedRole is a role that the policy wants, beside what is there of it.
type wantedRole struct {
	arn         policy.ARN
	destination policy.Destination
	// subjects are whom it is to trust; nobody: it is to be closed.
	subjects []policy.Subject
	// pruned counts those whom it loses because they are not seen any more.
	pruned int

	found  Role
	exists bool
	// is is the trust document, where it is readable; trusted are its subjects.
	is       policy.Document
	readable bool
	trusted  []policy.Subject

	tags                 map[string]string
	description, lacking string
}

func (m *planner) perServiceAccount() bool {
	return m.policy.Trust.RoleScope == policy.RoleScopeServiceAccount
}

// rolesOf are the roles that d needs, or has: one, or one for each subject.
func (m *planner) rolesOf(d policy.Destination, provider policy.ARN, found Account) []wantedRole {
	if m.perServiceAccount() {
		return m.subjectsRoles(d, found)
	}
	return m.destinationsRole(d, provider, found)
}

func (m *planner) inspectRole(arn policy.ARN, d policy.Destination, found Account) wantedRole {
	r := wantedRole{arn: arn, destination: d}
	r.found, r.exists = found.Roles[arn.RoleName()]
	is, err := policy.ParseDocument(r.found.Trust)
	r.is, r.readable, r.trusted = is, err == nil, m.trusted(is)
	return r
}

func (m *planner) destinationsRole(d policy.Destination, provider policy.ARN, found Account) []wantedRole {
	r := m.inspectRole(m.policy.Role(d), d, found)
	if r.exists && !m.owned(r.arn, r.found) {
		m.wanting(d, m.plan.Refusals[len(m.plan.Refusals)-1].Message)
		return nil
	}
	_, former := m.trustees(d, found)
	length := 0 // of a document that is too long: then all the newest are refused
	fits := func(kept []policy.Subject, s policy.Subject) bool {
		if length == 0 {
			if n := len(m.trust(provider, append(slices.Clip(kept), s)).String()); n > m.quota {
				length = n
			}
		}
		return length == 0
	}
	subjects, refused, pruned := m.subjects(d, r.trusted, former, fits)
	if length > 0 {
		m.refuse(r.arn, fmt.Sprintf(
			"no room in the trust document (%d characters, the quota is %d) for the newest: %s; set trust.roleScope: serviceAccount, which gives each its own role, "+
				"or raise the account's quota \"Role trust policy length\" and tell sync with --trust-quota, "+
				"or name the workspace in a second destination, which has a role of its own, and divide the grants",
			length, m.quota, joined(refused)))
		m.refuseFull(d, refused, "there is no room for newer ones in the trust document of "+r.arn.String())
	}
	if !r.exists && len(subjects) > 0 && !m.takeRole() {
		m.overRoles(d, subjects)
		subjects = nil
	}
	m.statusOf(d, r.trusted, subjects)
	if len(subjects) == 0 && !r.exists {
		m.note(r.arn.Account, r.arn.String(), "destination "+d.Name+": no service account that the policy grants is there yet, so no role is made")
		return nil
	}
	r.subjects, r.pruned, r.tags = subjects, pruned, m.tags(TagDestination, d.Name)
	r.description = fmt.Sprintf("Prometheus of cluster %s writes to %s; kept by ampbridge", m.policy.Cluster.Name, d.Workspace.ID())
	r.lacking = "destination " + d.Name + " has no role"
	return []wantedRole{r}
}

// subjectsRoles are those of everybody who is to be trusted for d, or is.
func (m *planner) subjectsRoles(d policy.Destination, found Account) []wantedRole {
	own, former := m.trustees(d, found)
	fits := func(_ []policy.Subject, s policy.Subject) bool {
		_, exists := found.Roles[m.policy.RoleFor(d, s).RoleName()]
		return exists || m.takeRole()
	}
	kept, refused, _ := m.subjects(d, own, former, fits)
	if len(refused) > 0 {
		m.overRoles(d, refused)
	}
	var list []wantedRole
	var standing []policy.Subject
	for _, s := range distinct(slices.Concat(own, kept)) {
		r := m.inspectRole(m.policy.RoleFor(d, s), d, found)
		wants := slices.Contains(kept, s)
		if r.exists && !m.owned(r.arn, r.found) {
			m.setStatus(s, d, Refused, false, "not trusted for destination "+d.Name+": "+m.plan.Refusals[len(m.plan.Refusals)-1].Message)
			continue
		}
		if wants {
			r.subjects = []policy.Subject{s}
			standing = append(standing, s)
		} else if m.pruned[s] {
			r.pruned = 1
		}
		r.tags = m.tags(TagDestination, d.Name, TagNamespace, s.Namespace, TagServiceAccount, s.ServiceAccount)
		r.description = fmt.Sprintf("Prometheus of cluster %s, service account %s of namespace %s, writes to %s; kept by ampbridge",
			m.policy.Cluster.Name, s.ServiceAccount, s.Namespace, d.Workspace.ID())
		r.lacking = s.String() + " has no role for destination " + d.Name
		list = append(list, r)
	}
	m.statusOf(d, own, standing)
	return list
}

// trustees are those whom roles of this cluster trust for d: roles as the policy
// scopes them now, and roles of the other scope.
func (m *planner) trustees(d policy.Destination, found Account) (own, former []policy.Subject) {
	for _, r := range found.all() {
		if !Owned(r.Tags, m.plan.Owner) {
			continue
		}
		is, err := policy.ParseDocument(r.Trust)
		if err != nil {
			continue // it is written anew, and trusts whom it is given then
		}
		for _, s := range m.trusted(is) {
			switch r.ARN {
			case m.policy.RoleFor(d, s):
				own = append(own, s)
			case m.formerRole(d, s):
				former = append(former, s)
			}
		}
	}
	return distinct(own), distinct(former)
}

// formerRole is what the role of s would be in the other trust.roleScope.
func (m *planner) formerRole(d policy.Destination, s policy.Subject) policy.ARN {
	if m.perServiceAccount() {
		return m.policy.Role(d)
	}
	return m.policy.ServiceAccountRole(d, s)
}

// closeRole closes a role of this cluster that nobody uses any more. One of the
// other trust.roleScope is closed last, when those in its stead are there; but
// whom the policy does not grant leaves it first.
func (m *planner) closeRole(found Role, provider policy.ARN) (first, last []Change) {
	named := slices.ContainsFunc(m.policy.Destinations, func(d policy.Destination) bool {
		return found.ARN == d.Role || found.ARN == d.AssumeRole
	})
	within := strings.HasPrefix(found.ARN.Resource, "role"+policy.RolePath(m.policy.Cluster.Name))
	if named || !within || !Owned(found.Tags, m.plan.Owner) {
		return nil, nil
	}
	is, err := policy.ParseDocument(found.Trust)
	trusted := m.trusted(is)
	var moving []policy.Subject
	for _, d := range m.policy.Destinations {
		for _, s := range trusted {
			if err == nil && Managed(m.policy, d) && found.ARN == m.formerRole(d, s) && m.mayKeep(s, d) {
				moving = append(moving, s)
			}
		}
	}
	change := func(to []policy.Subject, reason string) []Change {
		document := m.trust(provider, to)
		if err == nil && policy.Equal(is, document) {
			return nil
		}
		return []Change{{
			Call: UpdateTrust, Account: found.ARN.Account, Resource: found.ARN, Owner: m.plan.Owner, Destination: found.Tags[TagDestination],
			Reason:      reason,
			Differences: append(subjectDifferences(trusted, to), Difference{"trust document", plainText(found.Trust), document.String()}),
			Trust:       &document,
		}}
	}
	if len(moving) == 0 {
		return change(nil, "nobody whom the policy grants uses the role any more, so it is closed"), nil
	}
	last = change(nil, "trust.roleScope has changed: other roles take its place, so it is closed")
	for i := range last {
		last[i].Last = true
	}
	return change(moving, "trust.roleScope has changed, and the role trusts others than those who move"), last
}

// countHeadroom begins to count an account's room; nil: no end to it.
func (m *planner) countHeadroom(room *Headroom) {
	const endless = 1 << 30
	m.headroom = Headroom{Roles: endless, Providers: endless}
	if room != nil {
		m.headroom = *room
	}
}

// takeRole takes the place of one more role, if there is one.
func (m *planner) takeRole() bool {
	if m.headroom.Roles <= 0 {
		return false
	}
	m.headroom.Roles--
	return true
}

func (m *planner) overRoles(d policy.Destination, refused []policy.Subject) {
	mend := "raise its quota \"Roles per account\", or delete roles that nobody uses"
	if m.perServiceAccount() {
		mend += ", or set trust.roleScope: destination, where a destination has one role"
	}
	m.refuse(d.Workspace.ARN, fmt.Sprintf("account %s has no room for the roles of destination %s, so that it is refused to the newest: %s; %s",
		d.Workspace.Account, d.Name, joined(refused), mend))
	m.refuseFull(d, refused, "account "+d.Workspace.Account+" has no room for more roles")
}

// refuseFull tells the subjects that a quota keeps them out.
func (m *planner) refuseFull(d policy.Destination, refused []policy.Subject, why string) {
	for _, s := range refused {
		m.setStatus(s, d, QuotaExceeded, false, "not trusted for destination "+d.Name+": "+why+"; the cluster's admin can raise the account's quota, or divide the grants")
	}
}

// providerRefused refuses a provider that the account has no room for.
func (m *planner) providerRefused(arn policy.ARN) bool {
	if m.headroom.Providers > 0 {
		return false
	}
	m.refuse(arn, fmt.Sprintf("account %s has no room for another OIDC provider, so nobody new is trusted in it; "+
		"raise its quota \"OpenId connect providers per account\" and tell sync with --provider-quota, or delete providers of clusters that are gone", arn.Account))
	return true
}

// sameThumbprints goes by the set: neither order nor case counts.
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
