package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Input is all that a plan depends on.
type Input struct {
	Policy *policy.Policy
	// Issuer is the cluster's, discovered where the policy names none.
	Issuer policy.Issuer
	// ServiceAccounts are those of all labelled namespaces, in any order.
	ServiceAccounts []ServiceAccount
	// Accounts is what was found at the [Targets], by account id.
	Accounts map[string]Account
	// TrustQuota is in characters; 0: [TrustQuota].
	TrustQuota int

	// Now is when the service accounts were looked at.
	Now time.Time
	// Absence is what [TrackAbsence] made of that look; zero: nobody is pruned.
	Absence AbsenceState
	// Held says of subjects that are [PruneCandidates] why they are not to be pruned, as in
	// "a pod of it runs".
	Held map[policy.Subject]string
	// AllowShrink prunes even where more than half would go at once.
	AllowShrink bool
	// Missing are the workspaces of the policy that are known not to exist: nobody
	// new is trusted for them, and what there is for them stays.
	Missing map[policy.ARN]bool
}

// Compute compares what is with what the policy wants.
func Compute(in Input) Plan {
	m := newPlanner(in)
	m.noteDenied()
	m.noteAbsences()
	for i, d := range m.policy.Destinations {
		if Managed(m.policy, d) && m.missing(d) {
			m.refuse(d.Workspace.ARN, fmt.Sprintf("destinations[%d].workspace does not exist: there is no such workspace in account %s and region %s, so nobody new is trusted for destination %s; "+
				"copy its ARN, as `aws amp list-workspaces --region %s` prints it", i, d.Workspace.Account, d.Workspace.Region, d.Name, d.Workspace.Region))
		}
		if !Managed(m.policy, d) {
			role := m.policy.Role(d)
			m.note(role.Account, role.String(), "destination "+d.Name+": not managed by sync; whoever keeps the role keeps its trust")
		}
	}
	for _, target := range Targets(in.Policy, in.Issuer) {
		m.account(target, in.Accounts[target.Account])
	}
	return m.plan
}

func newPlanner(in Input) *planner {
	m := &planner{
		policy: in.Policy, issuer: in.Issuer, quota: in.TrustQuota, seen: map[policy.Subject]seen{},
		now: in.Now, absence: in.Absence, held: in.Held, allowShrink: in.AllowShrink, absent: in.Missing,
		plan: Plan{
			Cluster: in.Policy.Cluster.Name, Issuer: in.Issuer, Owner: policy.Owner(in.Policy.Cluster.Name, in.Issuer),
			Changes: []Change{}, Refusals: []Finding{}, Notes: []Finding{},
		},
	}
	if m.quota == 0 {
		m.quota = TrustQuota
	}
	m.collectIntents(in.ServiceAccounts)
	return m
}

// planner is a plan on its way.
type planner struct {
	policy *policy.Policy
	issuer policy.Issuer
	quota  int
	seen   map[policy.Subject]seen
	plan   Plan

	now         time.Time
	absence     AbsenceState
	held        map[policy.Subject]string
	allowShrink bool
	// absent are workspaces.
	absent map[policy.ARN]bool
	// Of the account at hand: pruned are those that it loses, room is what it takes.
	pruned   map[policy.Subject]bool
	headroom Headroom
}

func (m *planner) note(account, about, message string) {
	m.plan.Notes = append(m.plan.Notes, Finding{account, about, message})
}

func (m *planner) refuse(about policy.ARN, message string) {
	m.plan.Refusals = append(m.plan.Refusals, Finding{about.Account, about.String(), message})
}

func (m *planner) account(target Target, found Account) {
	if found.Problem != "" {
		m.refuse(target.Provider, found.Problem)
		return
	}
	var narrower, roles, closing []Change
	trusting, wanting := false, false // wanting: somebody does not get what the policy grants
	standings, refusals := len(m.plan.SubjectStatuses), len(m.plan.Refusals)
	m.pruned = m.prunable(target, found)
	m.countHeadroom(found.Headroom)
	used := map[policy.ARN]bool{}
	for _, d := range m.policy.Destinations {
		if !Managed(m.policy, d) || m.policy.Role(d).Account != target.Account {
			continue
		}
		wanting = wanting || m.missing(d)
		for _, r := range m.rolesOf(d, target.Provider, found) {
			first, changes := m.role(r, target.Provider, found)
			narrower, roles = append(narrower, first...), append(roles, changes...)
			trusting = trusting || len(r.subjects) > 0
			used[r.arn] = true
		}
	}
	for _, other := range found.all() {
		if !used[other.ARN] {
			first, last := m.closeRole(other, target.Provider)
			narrower, closing = append(narrower, first...), append(closing, last...)
		}
	}
	// Trust that shrinks waits for nothing, and for no provider.
	m.plan.Changes = append(m.plan.Changes, narrower...)
	// A provider that no role trusts is not needed yet.
	if trusting {
		changes, ok := m.provider(target.Provider, found)
		if !ok {
			m.refused(standings, m.plan.Refusals[len(m.plan.Refusals)-1].Message)
			return
		}
		m.plan.Changes = append(m.plan.Changes, changes...)
	}
	m.plan.Changes = append(m.plan.Changes, roles...)
	if wanting = wanting || len(m.plan.Refusals) > refusals; !wanting {
		m.plan.Changes = append(m.plan.Changes, closing...)
	} else {
		for _, c := range closing {
			m.note(c.Account, c.Resource.String(), "is of the other trust.roleScope; it is closed once nothing of the account is refused")
		}
	}
}

// provider is ok where tokens of the cluster are, or will be, accepted.
func (m *planner) provider(arn policy.ARN, in Account) (changes []Change, ok bool) {
	audience, thumbprints := m.policy.Token.Audience, m.policy.Cluster.IssuerCA.Thumbprints()
	tags := m.tags()
	base := Change{Account: arn.Account, Resource: arn, Owner: m.plan.Owner}
	found := in.Provider
	if found == nil {
		if m.providerRefused(arn) {
			return nil, false
		}
		c := base
		c.Call, c.Reason, c.Audience, c.Thumbprints, c.Tags = CreateProvider, "the account does not know the cluster's issuer", audience, thumbprints, tags
		c.Differences = append([]Difference{{Field: "audience", Becomes: audience}}, tagDifferences(nil, tags)...)
		if len(thumbprints) > 0 {
			c.Differences = append(c.Differences, Difference{Field: "thumbprints", Becomes: strings.Join(thumbprints, ", ")})
		}
		return []Change{c}, true
	}
	trusted := len(thumbprints) == 0 || sameThumbprints(found.Thumbprints, thumbprints)
	registered := slices.Contains(found.Audiences, audience)
	if owner := found.Tags[TagOwner]; owner != m.plan.Owner {
		switch {
		case owner != "":
			m.refuse(arn, fmt.Sprintf("belongs to cluster %q, which has the same issuer (%s %s, this cluster's is %s): a token of either would be taken for the other's; "+
				"give the API server an issuer of its own, or, if the cluster was renamed, set cluster.name back", found.Tags[TagCluster], TagOwner, owner, m.plan.Owner))
			return nil, false
		case !registered:
			m.refuse(arn, fmt.Sprintf("was not made by sync and does not take the audience %q, so nobody new is trusted in this account; add it: "+
				"aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn '%s' --client-id '%s'", audience, arn, audience))
			return nil, false
		}
		m.note(arn.Account, arn.String(), "was not made by sync: used as it is")
		if !trusted {
			m.note(arn.Account, arn.String(), fmt.Sprintf("has other thumbprints than those of cluster.issuerCA; if STS does not take the issuer's certificate, set them: "+
				"aws iam update-open-id-connect-provider-thumbprint --open-id-connect-provider-arn '%s' --thumbprint-list %s", arn, strings.Join(thumbprints, " ")))
		}
		return nil, true
	}
	if !registered {
		c := base
		c.Call, c.Reason, c.Audience = AddAudience, "the provider does not take the audience of the cluster's tokens", audience
		c.Differences = []Difference{{Field: "audience", Becomes: audience}}
		changes = append(changes, c)
	}
	if !trusted {
		c := base
		c.Call, c.Reason, c.Thumbprints = UpdateThumbprints, "the thumbprints are not those of cluster.issuerCA", thumbprints
		c.Differences = []Difference{{"thumbprints", strings.Join(found.Thumbprints, ", "), strings.Join(thumbprints, ", ")}}
		changes = append(changes, c)
	}
	if d := tagDifferences(found.Tags, tags); len(d) > 0 {
		c := base
		c.Call, c.Reason, c.Differences, c.Tags = TagProvider, "the tags are not as sync writes them", d, tags
		changes = append(changes, c)
	}
	return changes, true
}

// accepted tells whether tokens of the cluster are accepted already.
func (m *planner) accepted(found *Provider) bool {
	if found == nil || !slices.Contains(found.Audiences, m.policy.Token.Audience) {
		return false
	}
	owner := found.Tags[TagOwner]
	return owner == "" || owner == m.plan.Owner
}

// role is what a role needs: the changes that come first, because they make its
// trust narrower, and the rest.
func (m *planner) role(r wantedRole, provider policy.ARN, in Account) (first, changes []Change) {
	d, arn, found, exists, trusted, subjects := r.destination, r.arn, r.found, r.exists, r.trusted, r.subjects
	trust, permissions := m.trust(provider, subjects), policy.PermissionDocument(d)
	tags := r.tags
	base := Change{Account: arn.Account, Resource: arn, Owner: m.plan.Owner, Destination: d.Name}
	add := func(call Call, reason string, differences []Difference, values func(*Change)) {
		c := base
		c.Call, c.Reason, c.Differences = call, reason, differences
		values(&c)
		changes = append(changes, c)
	}
	boundary, session := m.policy.Boundary(arn.Partition, arn.Account), m.session()

	if !exists {
		differences := append(subjectDifferences(nil, subjects),
			Difference{Field: "permissions boundary", Becomes: boundary.String()},
			Difference{Field: "maximum session", Becomes: session.String()})
		add(CreateRole, r.lacking, append(differences, tagDifferences(nil, tags)...), func(c *Change) {
			c.Trust, c.Boundary, c.MaxSessionSeconds, c.Description, c.Tags = &trust, boundary, seconds(session), r.description, tags
		})
	}
	current, err := policy.ParseDocument(found.Permissions)
	permitted := err == nil && policy.Equal(current, permissions)
	bounded := found.Boundary == boundary.String()
	// Trust that shrinks waits for nothing; trust that grows waits until all else
	// is right, the boundary above all.
	next := slices.DeleteFunc(slices.Clone(trusted), func(s policy.Subject) bool { return !slices.Contains(subjects, s) })
	if bounded && permitted && m.accepted(in.Provider) {
		next = subjects
	}
	drifted := !r.readable || !policy.Equal(r.is, m.trust(provider, trusted))
	if exists && (drifted || !slices.Equal(next, trusted)) {
		narrow := m.trust(provider, next)
		differences := subjectDifferences(trusted, next)
		reason := trustReason(differences, r.pruned, len(subjects))
		if drifted {
			reason = "the trust document is not as sync writes it; " + reason
			differences = append(differences, Difference{"trust document", plainText(found.Trust), narrow.String()})
		}
		c := base
		c.Call, c.Reason, c.Differences, c.Trust = UpdateTrust, strings.TrimSuffix(reason, "; "), differences, &narrow
		first = []Change{c}
	}
	if m.missing(d) {
		return first, nil // left as it is, until the policy names a workspace that is there
	}
	if exists && !bounded {
		add(PutBoundary, "the permissions boundary differs from the policy's", []Difference{{"permissions boundary", found.Boundary, boundary.String()}},
			func(c *Change) { c.Boundary = boundary })
	}
	if !permitted {
		reason := "the permission document differs from the policy's"
		if found.Permissions == "" {
			reason = "the role has no permission document"
		}
		add(PutPermissions, reason, []Difference{{"permission document", plainText(found.Permissions), permissions.String()}},
			func(c *Change) { c.Permissions = &permissions })
	}
	if exists && len(subjects) > len(next) {
		differences := subjectDifferences(next, subjects)
		add(UpdateTrust, trustReason(differences, 0, len(subjects)), differences, func(c *Change) { c.Trust = &trust })
	}
	if exists && found.MaxSession != session {
		// UpdateRole would forget a description that it is not given.
		add(UpdateSession, "the maximum session duration differs from the policy's", []Difference{{"maximum session", found.MaxSession.String(), session.String()}},
			func(c *Change) { c.MaxSessionSeconds, c.Description = seconds(session), found.Description })
	}
	if d := tagDifferences(found.Tags, tags); exists && len(d) > 0 {
		add(TagRole, "the tags are not as sync writes them", d, func(c *Change) { c.Tags = tags })
	}
	return first, changes
}

// owned refuses a role of our name that is not this cluster's.
func (m *planner) owned(arn policy.ARN, found Role) bool {
	owner := found.Tags[TagOwner]
	switch {
	case Owned(found.Tags, m.plan.Owner) && found.ARN == arn:
		return true
	case owner == "":
		m.refuse(arn, fmt.Sprintf("the name is taken by %s, which was not made by sync (no tag %s), and names are unique whatever their path; "+
			"rename the destination, delete that role, or give it as the destination's role and keep it yourself", found.ARN, TagOwner))
	case owner != m.plan.Owner:
		m.refuse(arn, fmt.Sprintf("%s belongs to another cluster of the name %q, with another issuer (%s %s, this cluster's is %s); "+
			"choose another cluster.name, or delete that role if its cluster is gone", found.ARN, found.Tags[TagCluster], TagOwner, owner, m.plan.Owner))
	default:
		m.refuse(arn, fmt.Sprintf("%s carries this cluster's tags but lies elsewhere, and names are unique whatever their path; delete that role", found.ARN))
	}
	return false
}

// Owned tells whether tags name the owner.
func Owned(tags map[string]string, owner string) bool { return tags[TagOwner] == owner }

// trust lets the subjects in. Without any the role stays, but nobody may assume
// it: IAM refuses an empty list, and deleting the role could not be undone. A
// new one of the same name is another principal to every document that names
// the old, such as the trust of a chained role.
func (m *planner) trust(provider policy.ARN, subjects []policy.Subject) policy.Document {
	if len(subjects) > 0 {
		return policy.TrustDocument(provider, m.issuer, m.policy.Token.Audience, subjects)
	}
	return policy.Document{Version: policy.DocumentVersion, Statement: []policy.Statement{{
		Effect:    "Deny",
		Principal: &policy.Principal{"Federated": {provider.String()}},
		Action:    policy.Values{"sts:AssumeRoleWithWebIdentity"},
	}}}
}

// trusted are the subjects that a trust document lets in.
func (m *planner) trusted(d policy.Document) []policy.Subject {
	subjects := d.Subjects(m.issuer)
	slices.SortFunc(subjects, compareSubjects)
	return slices.Compact(subjects)
}

// session is what IAM takes as a role's maximum: whole seconds, an hour or more.
func (m *planner) session() time.Duration {
	d := time.Duration(m.policy.Session.Duration)
	if rest := d % time.Second; rest > 0 {
		d += time.Second - rest
	}
	return max(d, time.Hour)
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// Tags are on everything of a cluster.
func Tags(cluster, owner string) map[string]string {
	return map[string]string{TagOwner: owner, TagCluster: cluster, TagManagedBy: managedBy}
}

// tags are those of all that sync makes, and more: keys and values.
func (m *planner) tags(more ...string) map[string]string {
	tags := Tags(m.policy.Cluster.Name, m.plan.Owner)
	for pair := range slices.Chunk(more, 2) {
		tags[pair[0]] = pair[1]
	}
	return tags
}

// tagDifferences ignores tags that are not ours: accounts have tags of their own.
func tagDifferences(is, want map[string]string) []Difference {
	var list []Difference
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if was, found := is[key]; !found || was != want[key] {
			list = append(list, Difference{"tag " + key, was, want[key]})
		}
	}
	return list
}

func subjectDifferences(is, want []policy.Subject) []Difference {
	var list []Difference
	for _, s := range is {
		if !slices.Contains(want, s) {
			list = append(list, Difference{Field: "subject", Was: s.String()})
		}
	}
	for _, s := range want {
		if !slices.Contains(is, s) {
			list = append(list, Difference{Field: "subject", Becomes: s.String()})
		}
	}
	return list
}

func trustReason(subjects []Difference, pruned, left int) string {
	added, removed := 0, 0
	for _, d := range subjects {
		if d.Becomes != "" {
			added++
		} else {
			removed++
		}
	}
	var parts []string
	if added > 0 {
		parts = append(parts, count(added, "new subject"))
	}
	if pruned > 0 {
		parts = append(parts, count(pruned, "subject")+" not seen for longer than trust.pruneAfter")
	}
	if removed -= pruned; removed > 0 {
		parts = append(parts, count(removed, "subject")+" not granted any more, or opted out")
	}
	if left == 0 {
		parts = append(parts, "nobody is left, so the role is closed")
	}
	return strings.Join(parts, ", ")
}

// plainText is a document as people read it.
func plainText(document string) string {
	if d, err := policy.ParseDocument(document); err == nil {
		return d.String()
	}
	return document
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}
