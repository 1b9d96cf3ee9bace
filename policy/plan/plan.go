// Package plan compares AWS as it is with what the policy wants, and lists the
// changes that bring AWS in sync: a pure function, so that what `ampbridge plan`
// prints is exactly what `ampbridge sync` does.
//
// [Input.Targets] returns the accounts, roles and provider to read, [Compute] compares:
//
//	current                              desired                  change
//	-----------------------------------  -----------------------  --------------------------------------
//	no role                              a subject                create the role, put its permissions
//	no role                              no subject               none, with a note
//	role of another owner                any                      refused, with the fix
//	role trusts a subject                not granted              remove the subject, before all else
//	role trusts a subject                opted out                remove the subject, before all else
//	role trusts a subject                granted, not seen        none until trust.pruneAfter, then remove
//	role trusts no such subject          granted, asks for it     add the subject, after all else is right
//	trust document in another form       any                      replace it, before all else
//	boundary, permissions, session, tags
//	  differ                             the policy's             put the policy's
//	role of no destination               none                     close it: only a Deny statement is left
//	role of the other trust.roleScope    subjects have moved      close it, after all else has succeeded
//	workspace does not exist             a new subject            refused; the role stays as it is
//	boundary allows no query             a role that queries      refused; what writes goes on
//	no provider                          a role trusts a subject  create the provider
//	another owner's provider             a role trusts a subject  refused, with the fix
//	provider without an owner            a role trusts a subject  used as it is, with a note
//	audience, thumbprints, tags differ   the policy's             add or replace them
//
// Its rules:
//
//   - Trust is never wider than the policy: a subject that no grant covers any
//     more leaves its role's trust document in this very plan, before anything
//     else is changed; a role that no destination uses any more is closed.
//   - Trust is never lost by accident: a subject that the policy grants stays
//     trusted while its service account is not seen. A Helm upgrade deletes and
//     re-creates service accounts; taking trust away for that second would cost
//     samples.
//   - Who is not seen for longer than trust.pruneAfter is pruned, see [TrackAbsence]
//     and [PruneCandidates]: not while pods of it run, and not where so many are missed that
//     the list is rather wrong.
//   - A destination has one role, or one for each subject, as trust.roleScope has
//     it. Where that changes, trust moves: new roles first, and the old ones are
//     closed only if nothing was refused, and nothing of all before them failed.
//   - Nothing foreign is touched: a role or provider without this cluster's
//     owner tag is refused, with the way out.
//   - What others have added to a role of this cluster is reported and never removed: tags
//     that the policy does not ask for, and policies that sync did not write.
//   - The next plan after one that was applied is empty.
package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// The tags on every role and provider that sync makes. The owner decides; the
// others are for people.
const (
	TagOwner       = policy.TagOwner
	TagCluster     = policy.TagCluster
	TagDestination = policy.TagDestination
	TagManagedBy   = policy.TagManagedBy
	// Of roles that are one service account's.
	TagNamespace      = policy.TagNamespace
	TagServiceAccount = policy.TagServiceAccount

	managedBy = "ampbridge"
)

// PolicyName is the name of a role's one inline policy.
const PolicyName = "ampbridge"

// TrustQuota is how many characters IAM takes in a role's trust document,
// unless the account's quota was raised
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const TrustQuota = 2048

// ServiceAccount is a service account of a namespace that carries the label.
type ServiceAccount struct {
	Namespace string
	// Injection is the value of the namespace's label.
	Injection   policy.Injection
	Name        string
	Annotations map[string]string
	// Created orders the newcomers where there is no room for all.
	Created time.Time
}

// Target is what to look at in one AWS account.
type Target struct {
	Account string
	// Region is one of the account's workspaces': it tells the partition whose
	// IAM is asked.
	Region   string
	Provider policy.ARN
	// Roles are names, without paths: that is how IAM is asked.
	Roles []string
	// Path is where all roles of the cluster lie, those among them that the
	// policy does not want any more. Empty: they are not looked for.
	Path string
	// All: what lies on the path is read in full, into [Account.Roles]; of the
	// Roles, those that lie there need not be asked for by name.
	All bool
}

// Account is what was found at a [Target].
type Account struct {
	// Problem says why the account could not be read; nothing of it is changed
	// then. Empty: it was read.
	Problem string
	// Provider is nil where the issuer has none.
	Provider *Provider
	// Roles by name; those that do not exist are missing.
	Roles map[string]Role
	// Orphans lie on the target's path and are none of its roles; with
	// [Target.All], they are among Roles.
	Orphans []Role
	// Headroom is how many more things the account takes; nil: it was not asked.
	Headroom *Headroom
	// References are all the account's roles whose trust documents name the
	// provider; looked for only where everything is to be removed.
	References []policy.ARN
	// ReferencesProblem says why they could not be looked for.
	ReferencesProblem string
}

// all are the roles that were found, in an order that does not depend on IAM.
func (a Account) all() []Role {
	list := slices.AppendSeq(slices.Clone(a.Orphans), maps.Values(a.Roles))
	slices.SortFunc(list, func(a, b Role) int { return strings.Compare(a.ARN.String(), b.ARN.String()) })
	return list
}

// Headroom is what is left of an account's quotas.
type Headroom struct{ Roles, Providers int }

// ManagedPolicy is a customer managed policy as IAM describes it.
type ManagedPolicy struct {
	// Document is that of the default version, as IAM returns it.
	Document string
	Tags     map[string]string
}

// Provider is an OIDC provider as IAM describes it.
type Provider struct {
	Audiences []string
	// Thumbprints are SHA-1 sums in hex.
	Thumbprints []string
	Tags        map[string]string
}

// Role is a role as IAM describes it.
type Role struct {
	ARN policy.ARN
	// Trust is the trust document, Permissions the inline policy [PolicyName],
	// as IAM returns them, URL-encoded or not; no such policy: empty.
	Trust, Permissions string
	// Boundary is an ARN; none: empty.
	Boundary    string
	MaxSession  time.Duration
	Description string
	Tags        map[string]string
	// Further are the role's other policies: inline ones by name, attached ones by ARN.
	Further []string
	// FurtherProblem says why they are not known; empty: they are, or were not looked for.
	FurtherProblem string
}

// Plan lists the changes that bring AWS in sync with the policy. It is printed as text by
// [Plan.String], and encodes as JSON.
type Plan struct {
	Cluster string        `json:"cluster"`
	Issuer  policy.Issuer `json:"issuer"`
	Owner   string        `json:"owner"`
	// Changes in the order in which they are to be made. The later ones of an
	// account or role build on the earlier.
	Changes []Change `json:"changes"`
	// Refusals are what the policy asks for and the plan cannot do.
	Refusals []Finding `json:"refusals"`
	// Drift is what others have added to roles of this cluster. Sync does not remove it.
	Drift []Finding `json:"drift"`
	// Notes are worth knowing; they need no fix.
	Notes []Finding `json:"notes"`
	// SubjectStatuses tell what each subject gets, in no particular order.
	SubjectStatuses []SubjectStatus `json:"-"`
}

// InSync reports whether there is nothing to do and nothing refused.
func (p Plan) InSync() bool { return len(p.Changes) == 0 && len(p.Refusals) == 0 }

// Call is the IAM operation that makes a change.
type Call string

// The operations of a plan. Those that delete are in the plans of [Remove] alone.
const (
	CreateProvider Call = "CreateOpenIDConnectProvider"
	AddAudience    Call = "AddClientIDToOpenIDConnectProvider"
	// UpdateThumbprints replaces them all.
	UpdateThumbprints Call = "UpdateOpenIDConnectProviderThumbprint"
	TagProvider       Call = "TagOpenIDConnectProvider"
	CreateRole        Call = "CreateRole"
	PutBoundary       Call = "PutRolePermissionsBoundary"
	PutPermissions    Call = "PutRolePolicy"
	UpdateTrust       Call = "UpdateAssumeRolePolicy"
	UpdateSession     Call = "UpdateRole"
	TagRole           Call = "TagRole"

	// These are in the plans of package bootstrap alone.
	CreateWorkspace Call = "CreateWorkspace"
	TagWorkspace    Call = "TagResource"
	CreatePolicy    Call = "CreatePolicy"
	UpdatePolicy    Call = "CreatePolicyVersion"
	TagPolicy       Call = "TagPolicy"

	DeletePermissions Call = "DeleteRolePolicy"
	DeleteRole        Call = "DeleteRole"
	DeleteProvider    Call = "DeleteOpenIDConnectProvider"
)

// Creates reports whether c makes something new.
func (c Call) Creates() bool {
	return c == CreateProvider || c == CreateRole || c == CreateWorkspace || c == CreatePolicy
}

// Deletes reports whether c takes something away for good.
func (c Call) Deletes() bool {
	return c == DeletePermissions || c == DeleteRole || c == DeleteProvider
}

// OnProvider reports whether c makes or changes the provider, on which the
// account's roles depend.
func (c Call) OnProvider() bool {
	return c == CreateProvider || c == AddAudience || c == UpdateThumbprints || c == TagProvider
}

// Change is one call to IAM, with its reason.
type Change struct {
	Call     Call       `json:"call"`
	Account  string     `json:"account"`
	Resource policy.ARN `json:"resource"`
	// Owner is what the resource's tag must say right before the call, or says
	// after it.
	Owner string `json:"owner"`
	// Destination is empty for a provider.
	Destination string       `json:"destination,omitempty"`
	Reason      string       `json:"reason"`
	Differences []Difference `json:"differences,omitempty"`
	// Adopts: the resource has no owner yet, and gets one by this call.
	Adopts bool `json:"adopts,omitempty"`
	// Last: the change is made only if all that come before it in its account were.
	Last bool `json:"last,omitempty"`

	// What the call writes. Those that it does not take are zero.
	Audience    string           `json:"audience,omitempty"`
	Thumbprints []string         `json:"thumbprints,omitempty"`
	Trust       *policy.Document `json:"trust,omitempty"`
	Permissions *policy.Document `json:"permissions,omitempty"`
	Boundary    policy.ARN       `json:"boundary,omitzero"`
	// MaxSessionSeconds is 3600 to 43200.
	MaxSessionSeconds int               `json:"maxSessionSeconds,omitempty"`
	Description       string            `json:"description,omitempty"`
	Tags              map[string]string `json:"tags,omitempty"`
}

// Difference is a part of a change, for people. Was is empty for what is added,
// Becomes for what is taken away.
type Difference struct {
	Field   string `json:"field"`
	Was     string `json:"was,omitempty"`
	Becomes string `json:"becomes,omitempty"`
}

// Finding is a sentence about something in an account.
type Finding struct {
	// Account is empty for what concerns none of its own.
	Account string `json:"account,omitempty"`
	// About is an ARN or a subject.
	About   string `json:"about"`
	Message string `json:"message"`
}

// Targets are what to look at for the input to be complete, in the policy's
// order: [Targets], with the roles of the service accounts that want one.
func (in Input) Targets() []Target {
	targets := Targets(in.Policy, in.Issuer)
	if in.Policy.Trust.RoleScope != policy.RoleScopeServiceAccount {
		return targets
	}
	p := newPlanner(in)
	for i := range targets {
		t := &targets[i]
		for _, d := range in.Policy.Destinations {
			if !Managed(in.Policy, d) || d.Workspace.Account != t.Account {
				continue
			}
			for s := range p.seen {
				if p.intentOf(s, d.Name) == wanted {
					t.Roles = append(t.Roles, in.Policy.RoleFor(d, s).RoleName())
				}
			}
		}
		slices.Sort(t.Roles)
	}
	return targets
}

// Targets are the accounts in which sync keeps roles for the policy, in the
// policy's order; none with trust.manage: none. Where each service account has
// a role of its own, see [Input.Targets].
func Targets(p *policy.Policy, issuer policy.Issuer) []Target {
	var targets []Target
	index := map[string]int{}
	for _, d := range p.Destinations {
		if !Managed(p, d) {
			continue
		}
		role := p.Role(d)
		i, known := index[role.Account]
		if !known {
			i = len(targets)
			index[role.Account] = i
			targets = append(targets, Target{
				Account: role.Account, Region: d.Workspace.Region, Path: p.RolePath(),
				Provider: issuer.ProviderARN(role.Partition, role.Account),
			})
		}
		if targets[i].All = p.Trust.RoleScope == policy.RoleScopeServiceAccount; !targets[i].All {
			targets[i].Roles = append(targets[i].Roles, role.RoleName())
		}
	}
	return targets
}

// Managed reports whether sync keeps the roles of d: an explicit one is its admin's.
func Managed(p *policy.Policy, d policy.Destination) bool {
	return p.Trust.Manage == policy.ManageRoles && d.Role.IsZero()
}
