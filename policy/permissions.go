package policy

import (
	"maps"
	"slices"
)

// TagOwner is the tag, on every role and provider that sync makes, that says
// whose it is: [Owner]. Sync's own permissions go by it too.
const TagOwner = "ampbridge.io/owner"

// The other tags that sync writes, for people. The last two are of roles that are one
// service account's.
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
	// MaxManagedPolicy is for a managed policy, such as a permissions boundary.
	MaxManagedPolicy = 6144
	// MaxInlinePolicies is for all inline policies of a role together.
	MaxInlinePolicies = 10240
)

// SyncPermissions are what sync needs in one account, and nothing else: the
// whole of the identity policy of the role or user that it acts as there. A
// cluster that was taken over can, with these, at most make roles that write
// metrics, or query them where the policy has such a destination: every role it
// makes carries the policy's permissions boundary, lies on the cluster's own path
// under the cluster's own names, and things without the cluster's owner tag cannot
// be changed at all.
//
// The document has no statement where the policy gives sync nothing to do in
// the account.
func SyncPermissions(p *Policy, issuer Issuer, account string) Document {
	s, found := scopeOf(p, issuer, account)
	if !found {
		return Document{Version: DocumentVersion}
	}
	ours := equals("aws:ResourceTag/"+TagOwner, s.owner)
	// While a thing is being made its tags are asked for, and it has none.
	tagged := equals("aws:RequestTag/"+TagOwner, s.owner)
	tagged["StringEqualsIfExists"] = map[string]Values{"aws:ResourceTag/" + TagOwner: {s.owner}}
	bounded := func(more string) map[string]map[string]Values {
		c := equals("iam:PermissionsBoundary", s.boundary.String())
		c["StringEquals"][more] = Values{s.owner}
		return c
	}
	document := Document{Version: DocumentVersion, Statement: []Statement{
		// IAM has no resource for lists and counts.
		allow("List", Values{"iam:GetAccountSummary", "iam:ListOpenIDConnectProviders", "iam:ListRoles"}, Values{"*"}, nil),
		// All of them: who mistypes one is told so, rather than that it is denied.
		allow("ReadWorkspaces", Values{"aps:DescribeWorkspace"}, s.workspaces, nil),
		allow("ReadProvider", Values{"iam:GetOpenIDConnectProvider"}, s.provider, nil),
		// Wherever a role of our name lies, it takes the name: reading it is what
		// makes a clear refusal of it. Of one that does not exist IAM knows no path.
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
		// What follows holds even if somebody attaches a wider policy beside this
		// one.
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
		// Other systems give rights by tags: a role of ours gets none that the policy
		// does not name. A key in whatever case is one tag to IAM.
		{
			Sid: "NeverOtherTags", Effect: "Deny", Resource: Values{"*"}, Action: Values{
				"iam:CreateOpenIDConnectProvider", "iam:CreateRole", "iam:TagOpenIDConnectProvider", "iam:TagRole",
			},
			Condition: map[string]map[string]Values{"ForAnyValue:StringNotEqualsIgnoreCase": {"aws:TagKeys": p.TagKeys()}},
		},
		// A wildcard of IAM's does not stop at a slash: without this a role could
		// lie below one of ours and have any name, another cluster's too.
		{Sid: "NeverBelow", Effect: "Deny", NotAction: readRoles, Resource: s.below},
	}}
	if p.QueriesIn(account) {
		// A boundary of an earlier bootstrap allows no query: sync sees that, and tells it.
		document.Statement = append(document.Statement,
			allow("ReadBoundary", Values{"iam:GetPolicy", "iam:GetPolicyVersion"}, Values{s.boundary.String()}, nil))
	}
	return document
}

// readRoles are the reads of a role and its policies.
var readRoles = Values{"iam:GetRole", "iam:GetRolePolicy", "iam:ListAttachedRolePolicies", "iam:ListRolePolicies"}

// RemovalPermissions are what `sync --remove` needs beside [SyncPermissions]:
// to be attached for the time of an uninstall. They reach only what carries the
// cluster's owner tag.
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

// BoundaryDocument is the permissions boundary of the roles that sync makes in
// one account: whatever their own permission documents come to say, they write
// to the policy's workspaces there or query them, as the access of a destination
// says, or assume the second roles it names, and nothing else. Several clusters that share a boundary need the statements of
// them all in it.
//
// A document that IAM would find too long names workspaces by the beginning of
// their ids, in whatever region: AWS gives the ids, at random, so another workspace
// of the account does not begin alike.
//
// The document has no statement where the policy gives sync nothing to do in
// the account.
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

// scope is what of an account is a cluster's.
type scope struct {
	owner                string
	boundary             ARN
	provider, workspaces Values
	// roles are those that sync may change; visible those that it may read;
	// below is what the wildcards of both would reach too far.
	roles, visible, below Values
}

// scopeOf is not found where sync keeps no role in the account.
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

// roleNames are the patterns of the cluster's role names, in either scope of
// roles: a destination that is added to the policy later needs no new
// permissions, and no name of another cluster's roles fits.
func roleNames(cluster string) []string {
	names := []string{rolePrefix(cluster, destinationClusterPart) + "*", rolePrefix(cluster, clusterPart) + "*"}
	return slices.Compact(names)
}

// managedIn are the destinations whose roles sync keeps in the account.
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
