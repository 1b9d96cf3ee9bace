// Package plan compares what exists in AWS with what the policy wants, and lists the
// changes that bring AWS in sync. It is a pure function, so that `ampbridge sync` does exactly
// what `ampbridge plan` prints.
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
//	boundary allows no query             a role that queries      refused; roles that write are not affected
//	no provider                          a role trusts a subject  create the provider
//	another owner's provider             a role trusts a subject  refused, with the fix
//	provider without an owner            a role trusts a subject  used as it is, with a note
//	audience, thumbprints, tags differ   the policy's             add or replace them
//
// Its rules:
//
//   - Trust is never wider than the policy. If no grant covers a subject any more, this plan
//     removes it from the trust document before it changes anything else. If no destination uses
//     a role any more, the role is closed.
//   - Trust is never lost by accident. A subject that the policy grants stays trusted while its
//     service account does not exist: a Helm upgrade deletes and re-creates service accounts, and
//     without trust in between, samples would be lost.
//   - A subject that is missing for longer than trust.pruneAfter is pruned, see [TrackAbsence]
//     and [PruneCandidates]. It is not pruned while pods of it run, or if so many subjects are
//     missing that the list is probably wrong.
//   - A destination has one role, or one per subject, depending on trust.roleScope. If that setting
//     changes, trust moves: the new roles are created first. The old ones are closed only if the
//     plan refuses nothing and every change before them has succeeded.
//   - Nothing foreign is changed: a role or provider without this cluster's
//     owner tag is refused, with the fix.
//   - What others have added to a role of this cluster is reported and never removed: tags
//     that the policy does not ask for, and policies that sync did not write.
//   - After a plan was applied, the next plan is empty.
package plan

import (
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// The tags on every role and provider that sync creates. Sync reads only the owner; the
// others inform people.
const (
	TagOwner       = policy.TagOwner
	TagCluster     = policy.TagCluster
	TagDestination = policy.TagDestination
	TagManagedBy   = policy.TagManagedBy
	// These are only on roles of one service account.
	TagNamespace      = policy.TagNamespace
	TagServiceAccount = policy.TagServiceAccount

	managedBy = "ampbridge"
)

// PolicyName is the name of a role's only inline policy.
const PolicyName = "ampbridge"

// TrustQuota is the number of characters that IAM allows in a role's trust document,
// unless the account's quota was raised
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const TrustQuota = 2048

// ServiceAccount is a service account in a labelled namespace.
type ServiceAccount struct {
	Namespace string
	// Injection is the value of the namespace's label.
	Injection   policy.Injection
	Name        string
	Annotations map[string]string
	// Created orders new subjects if there is not enough headroom for all of them.
	Created time.Time
}

// Target is what to read in one AWS account.
type Target struct {
	Account string
	// Region is the region of one of the account's workspaces. It determines the partition, and so
	// the IAM endpoint.
	Region   string
	Provider policy.ARN
	// Roles are names without paths, because IAM's calls take names.
	Roles []string
	// Path is the path of all roles of the cluster, including those that the
	// policy does not want any more. If empty, such roles are not searched.
	Path string
	// With All, every role on the path is read completely, into [Account.Roles], so the roles there
	// need not be read by name.
	All bool
}

// Account is what exists at a [Target].
type Account struct {
	// Problem is why the account could not be read, in which case nothing in it is changed;
	// empty if it was read.
	Problem string
	// Provider is nil if there is no provider for the issuer.
	Provider *Provider
	// Roles maps names to the roles that exist.
	Roles map[string]Role
	// Orphans are roles on the target's path that are not among the target's roles. With
	// [Target.All] they are in Roles too.
	Orphans []Role
	// Headroom is how many more resources the account can have; nil if that was not read.
	Headroom *Headroom
	// References are all roles of the account with a trust document that names the provider.
	// They are searched only for the removal of everything.
	References []policy.ARN
	// ReferencesProblem is why References could not be read; empty if there was no error.
	ReferencesProblem string
}

// all returns the roles that exist, in an order that does not depend on IAM.
func (a Account) all() []Role {
	list := slices.AppendSeq(slices.Clone(a.Orphans), maps.Values(a.Roles))
	slices.SortFunc(list, func(a, b Role) int { return strings.Compare(a.ARN.String(), b.ARN.String()) })
	return list
}

// Headroom is the unused part of an account's quotas.
type Headroom struct{ Roles, Providers int }

// ManagedPolicy is a customer managed policy as IAM describes it.
type ManagedPolicy struct {
	// Document is the default version's document, as IAM returns it.
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
	// Trust is the trust document, and Permissions the inline policy [PolicyName], as IAM
	// returns them, URL-encoded or not. Permissions is empty without such a policy.
	Trust, Permissions string
	// Boundary is an ARN; empty if there is none.
	Boundary    string
	MaxSession  time.Duration
	Description string
	Tags        map[string]string
	// Further are the role's other policies: inline ones by name, attached ones by ARN.
	Further []string
	// FurtherProblem is why Further could not be read; empty if there was no error.
	FurtherProblem string
}

// Plan lists the changes that bring AWS in sync with the policy. [Plan.String] returns it as text,
// and it encodes as JSON.
type Plan struct {
	Cluster string        `json:"cluster"`
	Issuer  policy.Issuer `json:"issuer"`
	Owner   string        `json:"owner"`
	// Changes are in the order in which sync makes them. Later changes of an account or role
	// depend on earlier ones.
	Changes []Change `json:"changes"`
	// Refusals explain what the policy asks for and the plan does not do, with the fix.
	Refusals []Finding `json:"refusals"`
	// Drift is what others have added to roles of this cluster. Sync does not remove it.
	Drift []Finding `json:"drift"`
	// Notes inform; they need no fix.
	Notes []Finding `json:"notes"`
	// SubjectStatuses is what each subject gets, in no particular order.
	SubjectStatuses []SubjectStatus `json:"-"`
}

// InSync reports whether the plan changes nothing and refuses nothing.
func (p Plan) InSync() bool { return len(p.Changes) == 0 && len(p.Refusals) == 0 }

// Call is the IAM operation that makes a change.
type Call string

// The operations of a plan. Only plans of [Remove] have operations that delete.
const (
	CreateProvider Call = "CreateOpenIDConnectProvider"
	AddAudience    Call = "AddClientIDToOpenIDConnectProvider"
	// UpdateThumbprints replaces all thumbprints.
	UpdateThumbprints Call = "UpdateOpenIDConnectProviderThumbprint"
	TagProvider       Call = "TagOpenIDConnectProvider"
	CreateRole        Call = "CreateRole"
	PutBoundary       Call = "PutRolePermissionsBoundary"
	PutPermissions    Call = "PutRolePolicy"
	UpdateTrust       Call = "UpdateAssumeRolePolicy"
	UpdateSession     Call = "UpdateRole"
	TagRole           Call = "TagRole"

	// The following are only in plans of package bootstrap.
	CreateWorkspace Call = "CreateWorkspace"
	TagWorkspace    Call = "TagResource"
	CreatePolicy    Call = "CreatePolicy"
	UpdatePolicy    Call = "CreatePolicyVersion"
	TagPolicy       Call = "TagPolicy"

	DeletePermissions Call = "DeleteRolePolicy"
	DeleteRole        Call = "DeleteRole"
	DeleteProvider    Call = "DeleteOpenIDConnectProvider"
)

// Creates reports whether c creates a resource.
func (c Call) Creates() bool {
	return c == CreateProvider || c == CreateRole || c == CreateWorkspace || c == CreatePolicy
}

// Deletes reports whether c deletes something that cannot be restored.
func (c Call) Deletes() bool {
	return c == DeletePermissions || c == DeleteRole || c == DeleteProvider
}

// OnProvider reports whether c creates or changes the provider. The account's roles depend on it.
func (c Call) OnProvider() bool {
	return c == CreateProvider || c == AddAudience || c == UpdateThumbprints || c == TagProvider
}

// Change is one call to IAM, with its reason.
type Change struct {
	Call     Call       `json:"call"`
	Account  string     `json:"account"`
	Resource policy.ARN `json:"resource"`
	// Owner is the value of the resource's owner tag. It must be there before the call, unless the
	// call sets it.
	Owner string `json:"owner"`
	// Destination is the destination's name; empty for a provider.
	Destination string       `json:"destination,omitempty"`
	Reason      string       `json:"reason"`
	Differences []Difference `json:"differences,omitempty"`
	// Adopts is true if the resource has no owner yet, and this call sets one.
	Adopts bool `json:"adopts,omitempty"`
	// Last is true for a change that is made only if all earlier changes of its account succeeded.
	Last bool `json:"last,omitempty"`

	// The values that the call writes. Values that it does not need are zero.
	Audience    string           `json:"audience,omitempty"`
	Thumbprints []string         `json:"thumbprints,omitempty"`
	Trust       *policy.Document `json:"trust,omitempty"`
	Permissions *policy.Document `json:"permissions,omitempty"`
	Boundary    policy.ARN       `json:"boundary,omitzero"`
	// MaxSessionSeconds is between 3600 and 43200.
	MaxSessionSeconds int               `json:"maxSessionSeconds,omitempty"`
	Description       string            `json:"description,omitempty"`
	Tags              map[string]string `json:"tags,omitempty"`
}

// Difference describes a part of a change for people. Was is empty for an addition, and
// Becomes for a removal.
type Difference struct {
	Field   string `json:"field"`
	Was     string `json:"was,omitempty"`
	Becomes string `json:"becomes,omitempty"`
}

// Finding is a message about something in an account.
type Finding struct {
	// Account is the account's id; empty if the finding belongs to no account.
	Account string `json:"account,omitempty"`
	// About is an ARN or a subject.
	About   string `json:"about"`
	Message string `json:"message"`
}

// Targets returns what must be read for a complete input, in the policy's order: the result of
// the function [Targets], plus the roles of service accounts that want one.
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

// Targets returns the accounts in which sync manages roles for the policy, in the
// policy's order; none with trust.manage: none. If each service account has
// its own role, see [Input.Targets].
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

// Managed reports whether sync manages the roles of d. It does not manage a role that the policy
// names.
func Managed(p *policy.Policy, d policy.Destination) bool {
	return p.Trust.Manage == policy.ManageRoles && d.Role.IsZero()
}
