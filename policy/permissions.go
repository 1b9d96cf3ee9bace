package policy

import (
	"maps"
	"slices"
)

// TagOwner is the tag with the [Owner] on every role and provider that sync creates.
// Sync's own permissions depend on it too.
const TagOwner = "ampbridge.io/owner"

// The other tags that sync writes. They inform people. The last two are only on roles of one
// service account.
const (
	TagCluster        = "ampbridge.io/cluster"
	TagDestination    = "ampbridge.io/destination"
	TagManagedBy      = "ampbridge.io/managed-by"
	TagNamespace      = "ampbridge.io/namespace"
	TagServiceAccount = "ampbridge.io/service-account"
)

// IAM's limits on documents, in characters
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html).
const (
	// MaxManagedPolicy is the limit of a managed policy, such as a permissions boundary.
	MaxManagedPolicy = 6144
	// MaxInlinePolicies is the limit of all inline policies of a role together.
	MaxInlinePolicies = 10240
)

// SyncPermissions returns what sync needs in one account, and nothing else. It is the complete
// identity policy of sync's role or user in that account. An attacker who controls the cluster
// can, with these permissions, at most create roles that write metrics, or that query them if the
// policy has such a destination. Every role that sync creates has the policy's permissions boundary
// and is on the cluster's own path with one of the cluster's own names. Sync cannot change anything
// without the cluster's owner tag.
//
// The document has no statement if sync has nothing to do in the account.
func SyncPermissions(p *Policy, issuer Issuer, account string) Document {
	s, found := scopeOf(p, issuer, account)
	if !found {
		return Document{Version: DocumentVersion}
	}
	ours := equals("aws:ResourceTag/"+TagOwner, s.owner)
	// At creation IAM checks the tags of the request, because the new role or provider has none yet.
	tagged := equals("aws:RequestTag/"+TagOwner, s.owner)
	tagged["StringEqualsIfExists"] = map[string]Values{"aws:ResourceTag/" + TagOwner: {s.owner}}
	bounded := func(more string) map[string]map[string]Values {
		c := equals("iam:PermissionsBoundary", s.boundary.String())
		c["StringEquals"][more] = Values{s.owner}
		return c
	}
	document := Document{Version: DocumentVersion, Statement: []Statement{
		// IAM accepts no resource for lists and counts.
		allow("List", Values{"iam:GetAccountSummary", "iam:ListOpenIDConnectProviders", "iam:ListRoles"}, Values{"*"}, nil),
		// All workspaces, not only existing ones: for a mistyped one sync can then report that it
		// does not exist, and not only that access is denied.
		allow("ReadWorkspaces", Values{"aps:DescribeWorkspace"}, s.workspaces, nil),
		allow("ReadProvider", Values{"iam:GetOpenIDConnectProvider"}, s.provider, nil),
		// A role with one of our names blocks that name, wherever its path is. Sync must read it to
		// report who owns it. If the role does not exist, IAM checks the name without a path.
		allow("ReadRoles", readRoles, s.visible, nil),
		allow("MakeProvider", Values{"iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider"}, s.provider, tagged),
		allow(
			"ChangeProvider",
			Values{"iam:AddClientIDToOpenIDConnectProvider", "iam:UpdateOpenIDConnectProviderThumbprint"},
			s.provider,
			ours,
		),
		allow("MakeRoles", Values{"iam:CreateRole"}, s.roles, bounded("aws:RequestTag/"+TagOwner)),
		allow("TagRoles", Values{"iam:TagRole"}, s.roles, tagged),
		allow("ChangeRoles", Values{"iam:UpdateAssumeRolePolicy", "iam:UpdateRole"}, s.roles, ours),
		allow("PermitRoles", Values{"iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"}, s.roles, bounded("aws:ResourceTag/"+TagOwner)),
		// The following statements hold even if somebody attaches a wider policy as well.
		{
			Sid:       "NeverUnbounded",
			Effect:    "Deny",
			Action:    Values{"iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"},
			Resource:  Values{"*"},
			Condition: map[string]map[string]Values{"StringNotEquals": {"iam:PermissionsBoundary": {s.boundary.String()}}},
		},
		{
			Sid: "NeverWider", Effect: "Deny", Resource: Values{"*"}, Action: Values{
				"iam:Attach*", "iam:CreateAccessKey", "iam:CreateLoginProfile", "iam:CreatePolicy*", "iam:CreateUser",
				"iam:DeleteRolePermissionsBoundary", "iam:PassRole", "iam:PutUser*", "iam:SetDefaultPolicyVersion",
			},
		},
		// Other systems derive permissions from tags. So a role of sync gets no tag that the policy
		// does not name. IAM ignores the case of tag keys.
		{
			Sid: "NeverOtherTags", Effect: "Deny", Resource: Values{"*"}, Action: Values{
				"iam:CreateOpenIDConnectProvider", "iam:CreateRole", "iam:TagOpenIDConnectProvider", "iam:TagRole",
			},
			Condition: map[string]map[string]Values{"ForAnyValue:StringNotEqualsIgnoreCase": {"aws:TagKeys": p.TagKeys()}},
		},
		// IAM's wildcard also matches a slash. Without this statement sync could create a role
		// below the cluster's path with any name, also with a name of another cluster.
		{Sid: "NeverBelow", Effect: "Deny", NotAction: readRoles, Resource: s.below},
	}}
	if p.QueriesIn(account) {
		// The boundary of an earlier bootstrap may not allow queries. Sync reads it to report that.
		document.Statement = append(document.Statement,
			allow("ReadBoundary", Values{"iam:GetPolicy", "iam:GetPolicyVersion"}, Values{s.boundary.String()}, nil))
	}
	return document
}

// readRoles are the calls that read a role and its policies.
var readRoles = Values{"iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"}

// RemovalPermissions returns what `sync --remove` needs in addition to [SyncPermissions].
// Attach it only during an uninstall. It applies only to things with the cluster's owner tag.
func RemovalPermissions(p *Policy, issuer Issuer, account string) Document {
	s, found := scopeOf(p, issuer, account)
	if !found {
		return Document{Version: DocumentVersion}
	}
	ours := equals("aws:ResourceTag/"+TagOwner, s.owner)
	return Document{Version: DocumentVersion, Statement: []Statement{
		allow("RemoveProvider", Values{"iam:DeleteOpenIDConnectProvider"}, s.provider, ours),
		allow("RemoveRoles", Values{"iam:DeleteRole", "iam:DeleteRolePolicy"}, s.roles, ours),
	}}
}

// BoundaryDocument returns the permissions boundary of the roles that sync creates in one
// account. Whatever their own permission documents allow, these roles can only write to or query
// the policy's workspaces there, as each destination's access allows, or assume the second roles.
// If several clusters share a boundary, it needs the statements of all of them.
//
// If the document would be too long for IAM, it names workspaces by the beginning of their ids, in
// any region. AWS chooses the ids at random, so no other workspace of the account begins with
// the same characters.
//
// The document has no statement if sync has nothing to do in the account.
func BoundaryDocument(p *Policy, account string) Document {
	whole := boundary(p, account, func(w Workspace) string { return w.String() })
	if len(whole.String()) <= MaxManagedPolicy {
		return whole
	}
	return boundary(p, account, func(w Workspace) string {
		const id = len("workspace/ws-01234567-89ab")
		if w.IsNew() || len(w.Resource) <= id {
			return w.String()
		}
		w.Region, w.Resource = "*", w.Resource[:id]+"*"
		return w.String()
	})
}

func boundary(p *Policy, account string, name func(Workspace) string) Document {
	var writers, readers, both, roles Values
	for _, d := range p.managedIn(account) {
		switch workspace := name(d.Workspace); {
		case !d.AssumeRole.IsZero():
			roles = append(roles, d.AssumeRole.String())
		case d.Writes() && d.Queries():
			both = append(both, workspace)
		case d.Queries():
			readers = append(readers, workspace)
		default:
			writers = append(writers, workspace)
		}
	}
	document := Document{Version: DocumentVersion}
	for _, s := range []Statement{
		allow("Write", AccessWrite.Actions(), writers.canonical(nil), nil),
		allow("Query", AccessQuery.Actions(), readers.canonical(nil), nil),
		allow("WriteAndQuery", slices.Concat(AccessWrite.Actions(), AccessQuery.Actions()), both.canonical(nil), nil),
		allow("Chain", Values{"sts:AssumeRole"}, roles.canonical(nil), nil),
	} {
		if len(s.Resource) > 0 {
			document.Statement = append(document.Statement, s)
		}
	}
	return document
}

// scope is the part of an account that belongs to a cluster.
type scope struct {
	owner                string
	boundary             ARN
	provider, workspaces Values
	// roles are those that sync may change, and visible those that it may read. below is what
	// the wildcards in both match too much.
	roles, visible, below Values
}

// scopeOf returns found false if sync manages no role in the account.
func scopeOf(p *Policy, issuer Issuer, account string) (s scope, found bool) {
	destinations := p.managedIn(account)
	if len(destinations) == 0 {
		return scope{}, false
	}
	partition := destinations[0].Workspace.Partition
	s = scope{
		owner: Owner(p.Cluster.Name, issuer), provider: Values{issuer.ProviderARN(partition, account).String()},
		boundary:   p.Boundary(partition, account),
		workspaces: Values{ARN{Partition: partition, Service: "aps", Region: "*", Account: account, Resource: "workspace/*"}.String()},
	}
	role := func(resource string) string {
		return ARN{Partition: partition, Service: "iam", Account: account, Resource: "role" + resource}.String()
	}
	path := p.RolePath()
	s.visible = Values{role(path + "*")}
	for _, name := range roleNames(p.Cluster.Name) {
		s.roles = append(s.roles, role(path+name))
		s.visible = append(s.visible, role("/"+name), role("/*/"+name))
	}
	s.below = Values{role(path + "*/*")}
	return s, true
}

// TagKeys returns the keys of the tags that sync writes.
func (p *Policy) TagKeys() Values {
	own := Values{TagOwner, TagCluster, TagDestination, TagManagedBy, TagNamespace, TagServiceAccount}
	return append(own, slices.Sorted(maps.Keys(p.Trust.Tags))...)
}

// roleNames returns the patterns of the cluster's role names, for both scopes. So a destination
// that is added to the policy later needs no new permissions. No role name of another cluster
// matches.
func roleNames(cluster string) []string {
	names := []string{rolePrefix(cluster, destinationClusterPart) + "*", rolePrefix(cluster, clusterPart) + "*"}
	return slices.Compact(names)
}

// managedIn returns the destinations in the account for which sync manages the role.
func (p *Policy) managedIn(account string) []Destination {
	var list []Destination
	for _, d := range p.Destinations {
		if p.Trust.Manage == ManageRoles && d.Role.IsZero() && d.Workspace.Account == account {
			list = append(list, d)
		}
	}
	return list
}

func allow(sid string, actions, resources Values, condition map[string]map[string]Values) Statement {
	return Statement{Sid: sid, Effect: "Allow", Action: actions, Resource: resources, Condition: condition}
}

func equals(key, value string) map[string]map[string]Values {
	return map[string]map[string]Values{"StringEquals": {key: {value}}}
}
