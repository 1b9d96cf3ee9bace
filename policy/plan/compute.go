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

// Input holds everything that a plan depends on.
type Input struct {
	Policy *policy.Policy
	// Issuer is the cluster's issuer. If the policy names none, the caller reads it from the API server.
	Issuer policy.Issuer
	// ServiceAccounts are the service accounts of all labelled namespaces, in any order.
	ServiceAccounts []ServiceAccount
	// Accounts is what exists at the [Targets], by account id.
	Accounts map[string]Account
	// TrustQuota is the limit of a trust document in characters; 0 means [TrustQuota].
	TrustQuota int

	// Now is the time when the service accounts were read.
	Now time.Time
	// Absence is the result of [TrackAbsence] for this snapshot; zero: no subject is pruned.
	Absence AbsenceState
	// Held maps [PruneCandidates] that must not be pruned to the reason, for example
	// "a pod of it runs".
	Held map[policy.Subject]string
	// AllowShrink prunes even if more than half of the subjects would go at once.
	AllowShrink bool
	// Missing are the policy's workspaces that do not exist. No new subject is trusted for
	// them, and the roles that exist for them stay.
	Missing map[policy.ARN]bool
	// Unbounded maps destinations with query access, by name, to the reason why their permissions
	// boundary does not allow queries. If such a destination also has write access, its roles get
	// only that. Otherwise no new subject is trusted for it.
	Unbounded map[string]string
}

// Compute compares what exists with what the policy wants.
func Compute(in Input) Plan {
	p := newPlanner(in)
	p.noteDenied()
	p.noteAbsences()
	for i, d := range p.Policy.Destinations {
		if Managed(p.Policy, d) && p.missing(d) {
			p.refuse(
				d.Workspace.ARN,
				fmt.Sprintf(
					"destinations[%d].workspace does not exist: there is no such workspace in account %s and region %s, so no "+
						"new service account is "+
						"trusted for destination %s; "+
						"copy its ARN, as `aws amp list-workspaces --region %s` prints it",
					i,
					d.Workspace.Account,
					d.Workspace.Region,
					d.Name,
					d.Workspace.Region,
				),
			)
		}
		if why, found := p.Unbounded[d.Name]; found && Managed(p.Policy, d) {
			p.refuseQueries(i, d, why)
		}
		if !Managed(p.Policy, d) {
			role := p.Policy.Role(d)
			p.note(role.Account, role.String(), "destination "+d.Name+": sync does not manage this role; its owner keeps "+
				"its trust document")
		}
	}
	for _, target := range Targets(in.Policy, in.Issuer) {
		p.account(target, in.Accounts[target.Account])
	}
	return p.plan
}

func newPlanner(in Input) *planner {
	if in.TrustQuota == 0 {
		in.TrustQuota = TrustQuota
	}
	p := &planner{
		Input: in, seen: map[policy.Subject]seen{},
		plan: Plan{
			Cluster: in.Policy.Cluster.Name, Issuer: in.Issuer, Owner: policy.Owner(in.Policy.Cluster.Name, in.Issuer),
			Changes: []Change{}, Refusals: []Finding{}, Drift: []Finding{}, Notes: []Finding{},
		},
	}
	p.collectIntents(in.ServiceAccounts)
	return p
}

// planner is a plan under construction.
type planner struct {
	Input

	seen map[policy.Subject]seen
	plan Plan
	// For the current account: pruned subjects, and the quotas that are left.
	pruned   map[policy.Subject]bool
	headroom Headroom
}

func (p *planner) note(account, about, message string) {
	p.plan.Notes = append(p.plan.Notes, Finding{account, about, message})
}

func (p *planner) refuse(about policy.ARN, message string) {
	p.plan.Refusals = append(p.plan.Refusals, Finding{about.Account, about.String(), message})
}

func (p *planner) account(target Target, found Account) {
	if found.Problem != "" {
		p.refuse(target.Provider, found.Problem)
		return
	}
	var narrower, roles, closing []Change
	trusting, wanting := false, false // wanting: a subject does not get what the policy grants
	statuses, refusals := len(p.plan.SubjectStatuses), len(p.plan.Refusals)
	p.pruned = p.prunable(target, found)
	p.countHeadroom(found.Headroom)
	used := map[policy.ARN]bool{}
	for _, d := range p.Policy.Destinations {
		if !Managed(p.Policy, d) || p.Policy.Role(d).Account != target.Account {
			continue
		}
		wanting = wanting || p.missing(d) || p.waits(d)
		for _, r := range p.rolesOf(d, target.Provider, found) {
			first, changes := p.roleChanges(r, target.Provider, found)
			narrower, roles = append(narrower, first...), append(roles, changes...)
			trusting = trusting || len(r.subjects) > 0
			used[r.arn] = true
		}
	}
	for _, other := range found.all() {
		if !used[other.ARN] {
			first, last := p.closeRole(other, target.Provider)
			narrower, closing = append(narrower, first...), append(closing, last...)
		}
	}
	// A change that removes trust does not wait for anything, not even for the provider.
	p.plan.Changes = append(p.plan.Changes, narrower...)
	// A provider that no role trusts is not needed yet.
	if trusting {
		changes, ok := p.provider(target.Provider, found)
		if !ok {
			p.refused(statuses, p.plan.Refusals[len(p.plan.Refusals)-1].Message)
			return
		}
		p.plan.Changes = append(p.plan.Changes, changes...)
	}
	p.plan.Changes = append(p.plan.Changes, roles...)
	if wanting = wanting || len(p.plan.Refusals) > refusals; !wanting {
		p.plan.Changes = append(p.plan.Changes, closing...)
	} else {
		for _, c := range closing {
			p.note(c.Account, c.Resource.String(), "belongs to the other trust.roleScope; it is closed when nothing of "+
				"the account is refused any more")
		}
	}
}

// provider returns the changes for the provider. ok reports whether AWS accepts the cluster's
// tokens now, or will after these changes.
func (p *planner) provider(arn policy.ARN, in Account) (changes []Change, ok bool) {
	audience, thumbprints := p.Policy.Token.Audience, p.Policy.Cluster.IssuerCA.Thumbprints()
	tags := p.tags()
	base := Change{Account: arn.Account, Resource: arn, Owner: p.plan.Owner}
	found := in.Provider
	if found == nil {
		if p.providerRefused(arn) {
			return nil, false
		}
		c := base
		c.Call, c.Reason, c.Audience, c.Thumbprints, c.Tags = CreateProvider, "the account has no provider for the "+
			"cluster's issuer", audience,
			thumbprints, tags
		c.Differences = append([]Difference{{Field: "audience", Becomes: audience}}, TagDifferences(nil, tags)...)
		if len(thumbprints) > 0 {
			c.Differences = append(c.Differences, Difference{Field: "thumbprints", Becomes: strings.Join(thumbprints, ", ")})
		}
		return []Change{c}, true
	}
	trusted := len(thumbprints) == 0 || sameThumbprints(found.Thumbprints, thumbprints)
	registered := slices.Contains(found.Audiences, audience)
	owner := found.Tags[TagOwner]
	if adopts := owner == "" && p.Policy.Trust.AdoptProvider; adopts {
		c := base
		c.Call, c.Reason, c.Adopts = TagProvider, "trust.adoptProvider: the provider has no owner, so this cluster "+
			"takes it over", true
		c.Differences, c.Tags = TagDifferences(found.Tags, tags), tags
		changes = append(changes, c)
	} else if owner != p.plan.Owner {
		switch {
		case owner != "":
			p.refuse(
				arn,
				fmt.Sprintf(
					"belongs to cluster %q, which has the same issuer (%s %s, this cluster's is %s): a token of one would be "+
						"accepted for the other; "+
						"give the API server its own issuer, or, if the cluster was renamed, set cluster.name back",
					found.Tags[TagCluster],
					TagOwner,
					owner,
					p.plan.Owner,
				),
			)
			return nil, false
		case !registered:
			p.refuse(
				arn,
				fmt.Sprintf("was not created by sync and does not accept the audience %q, so no new service account is trusted "+
					"here; add it: aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn '%s' "+
					"--client-id '%s'", audience, arn, audience),
			)
			return nil, false
		}
		p.note(arn.Account, arn.String(), "was not created by sync: used as it is")
		if !trusted {
			p.note(
				arn.Account,
				arn.String(),
				fmt.Sprintf(
					"has other thumbprints than those of cluster.issuerCA; if STS refuses the issuer's certificate, set them: "+
						"aws iam update-open-id-connect-provider-thumbprint --open-id-connect-provider-arn '%s' --thumbprint-list %s",
					arn,
					strings.Join(thumbprints, " "),
				),
			)
		}
		return nil, true
	}
	if !registered {
		c := base
		c.Call, c.Reason, c.Audience = AddAudience, "the provider does not accept the audience of the cluster's "+
			"tokens", audience
		c.Differences = []Difference{{Field: "audience", Becomes: audience}}
		changes = append(changes, c)
	}
	if !trusted {
		c := base
		c.Call, c.Reason, c.Thumbprints = UpdateThumbprints, "the thumbprints are not those of cluster.issuerCA", thumbprints
		c.Differences = []Difference{{"thumbprints", strings.Join(found.Thumbprints, ", "), strings.Join(thumbprints, ", ")}}
		changes = append(changes, c)
	}
	if n := CountTags(found.Tags, tags); n > policy.MaxTags {
		p.refuse(arn, TooManyTags(found.Tags, n))
	} else if d := TagDifferences(found.Tags, tags); len(d) > 0 && owner == p.plan.Owner {
		c := base
		c.Call, c.Reason, c.Differences, c.Tags = TagProvider, "the tags differ from those that sync writes", d, tags
		changes = append(changes, c)
	}
	return changes, true
}

// accepted reports whether AWS accepts the cluster's tokens already.
func (p *planner) accepted(found *Provider) bool {
	if found == nil || !slices.Contains(found.Audiences, p.Policy.Token.Audience) {
		return false
	}
	owner := found.Tags[TagOwner]
	return owner == "" || owner == p.plan.Owner
}

// owned reports whether a role with our name belongs to this cluster. It refuses any other role.
func (p *planner) owned(arn policy.ARN, found Role) bool {
	owner := found.Tags[TagOwner]
	switch {
	case found.OwnedAt(arn, p.plan.Owner):
		return true
	case owner == "":
		p.refuse(
			arn,
			fmt.Sprintf("the name is taken by %s, which was not created by sync (no tag %s), and names are unique whatever "+
				"their path; rename the destination, delete that role, or set it as the destination's role and manage it "+
				"yourself", found.ARN, TagOwner),
		)
	case owner != p.plan.Owner:
		p.refuse(arn, fmt.Sprintf("%s belongs to another cluster of the name %q, with another issuer (%s %s, this "+
			"cluster's is %s); choose another cluster.name, or delete that role if its cluster is gone",
			found.ARN, found.Tags[TagCluster], TagOwner, owner, p.plan.Owner))
	default:
		p.refuse(
			arn,
			fmt.Sprintf(
				"%s has this cluster's tags but another path, and names are unique whatever their path; delete that role",
				found.ARN,
			),
		)
	}
	return false
}

// OwnedAt reports whether the role has that ARN and owner. Role names are unique in an account,
// so a role of the same name can have another path, or another owner.
func (r Role) OwnedAt(arn policy.ARN, owner string) bool {
	return r.ARN == arn && Owned(r.Tags, owner)
}

// Owned reports whether tags name the owner.
func Owned(tags map[string]string, owner string) bool { return tags[TagOwner] == owner }

// trust returns a trust document for the subjects. If there are none, the role stays, and the
// document denies everybody: IAM refuses an empty list, and a deleted role cannot be restored. A
// new role of the same name is another principal for every document that names
// the old one, such as the trust document of a chained role.
func (p *planner) trust(provider policy.ARN, subjects []policy.Subject) policy.Document {
	if len(subjects) > 0 {
		return policy.TrustDocument(provider, p.Issuer, p.Policy.Token.Audience, subjects)
	}
	return policy.Document{Version: policy.DocumentVersion, Statement: []policy.Statement{{
		Effect:    "Deny",
		Principal: &policy.Principal{"Federated": {provider.String()}},
		Action:    policy.Values{"sts:AssumeRoleWithWebIdentity"},
	}}}
}

// trusted returns the subjects that a trust document trusts.
func (p *planner) trusted(d policy.Document) []policy.Subject {
	subjects := d.Subjects(p.Issuer)
	slices.SortFunc(subjects, compareSubjects)
	return slices.Compact(subjects)
}

// session returns a maximum session that IAM accepts for a role: whole seconds, an hour or more.
func (p *planner) session() time.Duration {
	d := time.Duration(p.Policy.Session.Duration)
	if rest := d % time.Second; rest > 0 {
		d += time.Second - rest
	}
	return max(d, time.Hour)
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// Tags returns the tags of everything that belongs to a cluster.
func Tags(cluster, owner string) map[string]string {
	return map[string]string{TagOwner: owner, TagCluster: cluster, TagManagedBy: managedBy}
}

// tags returns the tags of everything that sync creates, with more keys and values.
func (p *planner) tags(more ...string) map[string]string {
	tags := Tags(p.Policy.Cluster.Name, p.plan.Owner)
	maps.Copy(tags, p.Policy.Trust.Tags)
	for pair := range slices.Chunk(more, 2) {
		tags[pair[0]] = pair[1]
	}
	return tags
}

// TagDifferences returns what the wanted tags add or change. It ignores all other tags, because
// accounts have tags of their own. IAM ignores the case of keys, so a key that differs only in
// case is the same tag. AMP has one tag per case, so the tag with exactly that key counts.
func TagDifferences(is, want map[string]string) []Difference {
	folded := map[string]string{}
	for key, value := range is {
		folded[strings.ToLower(key)] = value
	}
	var list []Difference
	for _, key := range slices.Sorted(maps.Keys(want)) {
		was, found := is[key]
		if !found {
			was, found = folded[strings.ToLower(key)]
		}
		if !found || was != want[key] {
			list = append(list, Difference{"tag " + key, was, want[key]})
		}
	}
	return list
}

// ForeignTags returns the keys of the tags that are neither wanted nor AWS's own.
func ForeignTags(is map[string]string, want []string) []string {
	asked := map[string]bool{}
	for _, key := range want {
		asked[strings.ToLower(key)] = true
	}
	var keys []string
	for _, key := range slices.Sorted(maps.Keys(is)) {
		if lower := strings.ToLower(key); !asked[lower] && !strings.HasPrefix(lower, "aws:") {
			keys = append(keys, key)
		}
	}
	return keys
}

// CountTags returns the number of tags that a resource has together with the wanted ones.
func CountTags(is, want map[string]string) int {
	keys := map[string]bool{}
	for _, tags := range []map[string]string{is, want} {
		for key := range tags {
			keys[strings.ToLower(key)] = true
		}
	}
	return len(keys)
}

// TooManyTags returns why a resource does not get its tags: with them it would have n.
func TooManyTags(is map[string]string, n int) string {
	return fmt.Sprintf("has %d tags, and with the wanted ones it would have %d; AWS accepts %d: want fewer, or "+
		"remove some",
		len(is), n, policy.MaxTags)
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
		parts = append(parts, "no subject is left, so the role is closed")
	}
	return strings.Join(parts, ", ")
}

// plainText returns a document in a readable form.
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
