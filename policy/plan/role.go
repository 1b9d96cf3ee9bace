package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// roleDiff is one role as it exists, together with what the policy wants.
type roleDiff struct {
	planner *planner
	wantedRole
	provider policy.ARN
	boundary policy.ARN
	session  time.Duration
	// permissions is the wanted permission document.
	permissions policy.Document
	// bounded and permitted report whether boundary and permission document are right.
	bounded, permitted bool
	// next lists the subjects to trust before anything else is fixed.
	next []policy.Subject
}

// roleChanges returns the changes that one role needs. first has the change that makes its
// trust narrower: it does not wait for anything, not even for the provider.
func (p *planner) roleChanges(r wantedRole, provider policy.ARN, account Account) (first, changes []Change) {
	d := p.compareRole(r, provider, account)
	d.drift()
	switch {
	case p.missing(r.destination):
		return d.narrow(), nil // no other change until the policy names a workspace that exists
	case p.waits(r.destination) && !r.exists:
		return nil, nil
	}
	if !r.exists {
		return nil, append(d.create(), d.fix()...)
	}
	return d.narrow(), slices.Concat(d.fix(), d.grow(), d.describe())
}

func (p *planner) compareRole(r wantedRole, provider policy.ARN, account Account) roleDiff {
	d := roleDiff{
		planner: p, wantedRole: r, provider: provider,
		boundary: p.Policy.Boundary(r.arn.Partition, r.arn.Account), session: p.session(),
	}
	d.bounded = r.found.Boundary == d.boundary.String()
	permissions, err := policy.ParseDocument(r.found.Permissions)
	d.permissions = policy.PermissionDocument(p.bounded(r.destination))
	// If the boundary cannot be read once, the role keeps its permissions: the boundary limits them anyway.
	d.permitted = err == nil &&
		(policy.Equal(permissions, d.permissions) || policy.Equal(permissions, policy.PermissionDocument(r.destination)))
	// New trust waits until everything else is right, above all the boundary.
	d.next = slices.DeleteFunc(slices.Clone(r.trusted), func(s policy.Subject) bool { return !slices.Contains(r.subjects, s) })
	if d.bounded && d.permitted && p.accepted(account.Provider) {
		d.next = r.subjects
	}
	return d
}

// change returns a change of this role. The caller sets the values that the call writes.
func (d roleDiff) change(call Call, reason string, differences ...Difference) Change {
	return Change{
		Call: call, Account: d.arn.Account, Resource: d.arn, Owner: d.planner.plan.Owner, Destination: d.destination.Name,
		Reason: reason, Differences: differences,
	}
}

func (d roleDiff) create() []Change {
	differences := append(subjectDifferences(nil, d.subjects),
		Difference{Field: "permissions boundary", Becomes: d.boundary.String()},
		Difference{Field: "maximum session", Becomes: d.session.String()})
	c := d.change(CreateRole, d.lacking, append(differences, TagDifferences(nil, d.tags)...)...)
	trust := d.planner.trust(d.provider, d.subjects)
	c.Trust, c.Boundary, c.MaxSessionSeconds, c.Description, c.Tags = &trust, d.boundary, seconds(d.session), d.description, d.tags
	return []Change{c}
}

// narrow removes subjects from the trust document, or rewrites it in sync's form.
func (d roleDiff) narrow() []Change {
	drifted := !d.readable || !policy.Equal(d.current, d.planner.trust(d.provider, d.trusted))
	if !d.exists || (!drifted && slices.Equal(d.next, d.trusted)) {
		return nil
	}
	document := d.planner.trust(d.provider, d.next)
	differences := subjectDifferences(d.trusted, d.next)
	reason := trustReason(differences, d.pruned, len(d.subjects))
	if drifted {
		reason = strings.TrimSuffix("the trust document differs from the form that sync writes; "+reason, "; ")
		differences = append(differences, Difference{"trust document", plainText(d.found.Trust), document.String()})
	}
	c := d.change(UpdateTrust, reason, differences...)
	c.Trust = &document
	return []Change{c}
}

// fix corrects the boundary and the permission document.
func (d roleDiff) fix() (changes []Change) {
	if d.exists && !d.bounded {
		c := d.change(PutBoundary, "the permissions boundary differs from the policy's",
			Difference{"permissions boundary", d.found.Boundary, d.boundary.String()})
		c.Boundary = d.boundary
		changes = append(changes, c)
	}
	if !d.permitted {
		reason := "the permission document differs from the policy's"
		if d.found.Permissions == "" {
			reason = "the role has no permission document"
		}
		c := d.change(PutPermissions, reason,
			Difference{"permission document", plainText(d.found.Permissions), d.permissions.String()})
		c.Permissions = &d.permissions
		changes = append(changes, c)
	}
	return changes
}

// grow adds the subjects that waited for boundary, permissions and provider.
func (d roleDiff) grow() []Change {
	if len(d.subjects) <= len(d.next) {
		return nil
	}
	differences := subjectDifferences(d.next, d.subjects)
	c := d.change(UpdateTrust, trustReason(differences, 0, len(d.subjects)), differences...)
	trust := d.planner.trust(d.provider, d.subjects)
	c.Trust = &trust
	return []Change{c}
}

// drift reports what others have added to the role.
func (d roleDiff) drift() {
	report := func(message string) {
		d.planner.plan.Drift = append(d.planner.plan.Drift, Finding{d.arn.Account, d.arn.String(), message})
	}
	if !d.exists {
		return
	}
	if keys := ForeignTags(d.found.Tags, slices.Collect(maps.Keys(d.tags))); len(keys) > 0 {
		report("has tags that the policy does not ask for, and other systems may give it rights because of them: " + strings.Join(keys, ", ") +
			"; name them in trust.tags, or remove them (aws iam untag-role)")
	}
	if len(d.found.Further) > 0 {
		report("has policies that sync did not write: " + strings.Join(d.found.Further, ", ") +
			"; remove them from the role (aws iam delete-role-policy, aws iam detach-role-policy), " +
			"or set the role as the destination's role and manage it yourself")
	}
	if d.found.FurtherProblem != "" {
		d.planner.note(d.arn.Account, d.arn.String(),
			"cannot read whether others have given it policies; run bootstrap again: "+d.found.FurtherProblem)
	}
}

// describe corrects session length and tags. No other change waits for them.
func (d roleDiff) describe() (changes []Change) {
	if d.found.MaxSession != d.session {
		c := d.change(UpdateSession, "the maximum session duration differs from the policy's",
			Difference{"maximum session", d.found.MaxSession.String(), d.session.String()})
		// UpdateRole removes the description unless the call contains it.
		c.MaxSessionSeconds, c.Description = seconds(d.session), d.found.Description
		changes = append(changes, c)
	}
	if n := CountTags(d.found.Tags, d.tags); n > policy.MaxTags {
		d.planner.refuse(d.arn, TooManyTags(d.found.Tags, n))
	} else if differences := TagDifferences(d.found.Tags, d.tags); len(differences) > 0 {
		c := d.change(TagRole, "the tags differ from those that sync writes", differences...)
		c.Tags = d.tags
		changes = append(changes, c)
	}
	return changes
}
