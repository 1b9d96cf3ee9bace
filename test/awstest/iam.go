package awstest

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// iamOperations are the calls of IAM that the double implements.
// getSummary returns the account's counts and quotas that the double knows. IAM does not report
// the quota of OIDC providers.
var iamOperations = map[string]operation{
	"AddClientIDToOpenIDConnectProvider":      addClientID,
	"AttachRolePolicy":                        attachRolePolicy,
	"CreateOpenIDConnectProvider":             createProvider,
	"CreatePolicy":                            createPolicy,
	"CreatePolicyVersion":                     createPolicyVersion,
	"CreateRole":                              createRole,
	"DeleteOpenIDConnectProvider":             deleteProvider,
	"DeletePolicy":                            deletePolicy,
	"DeletePolicyVersion":                     deletePolicyVersion,
	"DeleteRole":                              deleteRole,
	"DeleteRolePermissionsBoundary":           deleteBoundary,
	"DeleteRolePolicy":                        deleteRolePolicy,
	"DetachRolePolicy":                        detachRolePolicy,
	"GetAccountSummary":                       getSummary,
	"GetOpenIDConnectProvider":                getProvider,
	"GetPolicy":                               getPolicy,
	"GetPolicyVersion":                        getPolicyVersion,
	"GetRole":                                 getRole,
	"GetRolePolicy":                           getRolePolicy,
	"ListAttachedRolePolicies":                listAttachedRolePolicies,
	"ListPolicyTags":                          listPolicyTags,
	"ListOpenIDConnectProviderTags":           listProviderTags,
	"ListPolicyVersions":                      listPolicyVersions,
	"ListOpenIDConnectProviders":              listProviders,
	"ListRolePolicies":                        listRolePolicies,
	"ListRoleTags":                            listRoleTags,
	"ListRoles":                               listRoles,
	"PutRolePermissionsBoundary":              putBoundary,
	"PutRolePolicy":                           putRolePolicy,
	"RemoveClientIDFromOpenIDConnectProvider": removeClientID,
	"TagOpenIDConnectProvider":                tagProvider,
	"TagPolicy":                               tagPolicy,
	"TagRole":                                 tagRole,
	"UntagOpenIDConnectProvider":              untagProvider,
	"UntagRole":                               untagRole,
	"UpdateAssumeRolePolicy":                  updateTrust,
	"UpdateOpenIDConnectProviderThumbprint":   updateThumbprints,
	"UpdateRole":                              updateRole,
}

// getSummary counts what the account holds, and what it may, as far as the double knows of it. IAM does not tell
// the quota of OIDC providers.
func getSummary(q *queryCall) (any, error) {
	if err := q.authorize("iam:GetAccountSummary", "*", nil); err != nil {
		return nil, err
	}
	type entry struct {
		Key   string `xml:"key"`
		Value int    `xml:"value"`
	}
	type entries struct {
		Entries []entry `xml:"entry"`
	}
	a := q.account()
	return struct{ SummaryMap entries }{entries{[]entry{
		{"AssumeRolePolicySizeQuota", a.quotas.TrustPolicy},
		{"Providers", a.providers.count()},
		{"Roles", a.roles.count()},
		{"RolesQuota", a.quotas.Roles},
		{"Users", len(a.users)},
	}}}, nil
}

// account returns the caller's account. IAM calls never affect another one.
func (q *queryCall) account() *Account { return q.caller.account }

// readTime returns the time of the state that IAM's reads show.
func (q *queryCall) readTime() time.Time { return q.cloud.now().Add(-q.cloud.readDelay) }

// authorize returns AccessDenied unless the caller may do the action on the resource.
func (q *queryCall) authorize(action, resource string, context conditionContext) error {
	all := q.cloud.contextOf(q.caller)
	all.set("aws:RequestedRegion", q.region)
	maps.Copy(all, context)
	ok, reason := q.cloud.permissionsOf(q.caller).decide(access{action, resource, all})
	if ok {
		return nil
	}
	return apiErrf(403, "AccessDenied", "User: %s is not authorized to perform: %s on resource: %s %s",
		q.caller.arn(), action, resource, reason)
}

// contextOf returns the condition keys that every call of the caller has.
func (c *Cloud) contextOf(caller *credential) conditionContext {
	context := conditionContext{}
	context.set("aws:PrincipalAccount", caller.account.ID)
	context.set("aws:CurrentTime", c.now().UTC().Format(time.RFC3339))
	if caller.user != nil {
		context.set("aws:PrincipalArn", caller.user.arn)
		context.set("aws:PrincipalType", "User")
		context.set("aws:username", caller.user.name)
	} else {
		context.set("aws:PrincipalArn", caller.roleARN)
		context.set("aws:PrincipalType", "AssumedRole")
		tags := caller.sessionTags
		if r := caller.account.roles[strings.ToLower(caller.roleName)].latest(); r != nil {
			tags = withTags(r.tags, tags)
		}
		for _, t := range tags {
			context.set("aws:PrincipalTag/"+t.Key, t.Value)
		}
	}
	context.set("aws:userid", caller.userID())
	return context
}

// permissionsOf returns the caller's current permissions. Those of a session follow its role, with the
// delay of IAM's changes.
func (c *Cloud) permissionsOf(caller *credential) permissions {
	if caller.user != nil {
		return permissions{identity: []document{caller.user.policy}, control: caller.account.control}
	}
	seen := c.now().Add(-c.propagation)
	role := caller.account.roles[strings.ToLower(caller.roleName)].seen(seen)
	if role == nil || role.id != caller.roleID {
		return permissions{} // the role was deleted, or another role has its name
	}
	p := permissions{identity: slices.Collect(maps.Values(role.inline)), session: caller.sessionPolicy, control: caller.account.control}
	for _, arn := range role.attached {
		if policy := caller.account.policies[arn].seen(seen); policy != nil {
			p.identity = append(p.identity, policy.document)
		}
	}
	if role.boundary != "" {
		p.boundary = &document{} // a deleted boundary allows nothing
		if policy := caller.account.policies[role.boundary].seen(seen); policy != nil {
			p.boundary = &policy.document
		}
	}
	return p
}

// tag is a tag of a role or provider.
type tag struct{ Key, Value string }

// members is a list in an answer.
type members[T any] struct {
	Members []T `xml:"member"`
}

var validTag = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

func checkTags(tags []tag) error {
	seen := map[string]bool{}
	for i, t := range tags {
		at := fmt.Sprintf("tags.%d.member.", i+1)
		switch {
		case t.Key == "" || len([]rune(t.Key)) > 128 || !validTag.MatchString(t.Key):
			return invalid(
				t.Key,
				at+"key",
				`Member must have length between 1 and 128 and satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]+`,
			)
		case len([]rune(t.Value)) > 256 || !validTag.MatchString(t.Value):
			return invalid(
				t.Value,
				at+"value",
				`Member must have length less than or equal to 256 and satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]*`,
			)
		case seen[strings.ToLower(t.Key)]:
			return apiErr(400, "InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
		}
		seen[strings.ToLower(t.Key)] = true
	}
	return nil
}

// withTags returns old with the added tags, which replace those with the same key.
func withTags(old, added []tag) []tag {
	result := slices.Clone(old)
	for _, t := range added {
		i := slices.IndexFunc(result, func(o tag) bool { return strings.EqualFold(o.Key, t.Key) })
		if i < 0 {
			result = append(result, t)
		} else {
			result[i] = t
		}
	}
	return result
}

func withoutTags(old []tag, keys []string) []tag {
	return slices.DeleteFunc(slices.Clone(old), func(t tag) bool {
		return slices.ContainsFunc(keys, func(key string) bool { return strings.EqualFold(key, t.Key) })
	})
}

func (a *Account) checkTagQuota(tags []tag) error {
	if len(tags) > a.quotas.Tags {
		return apiErr(409, "LimitExceeded", "The number of tags has reached the maximum limit.")
	}
	return nil
}

// requestTags adds the condition keys of the tags that a call sets.
func (c conditionContext) requestTags(tags []tag) conditionContext {
	var keys []string
	for _, t := range tags {
		c.set("aws:RequestTag/"+t.Key, t.Value)
		keys = append(keys, t.Key)
	}
	c.set("aws:TagKeys", keys...)
	return c
}

// resourceTags adds the condition keys of the tags that the resource has.
func (c conditionContext) resourceTags(tags []tag) {
	for _, t := range tags {
		c.set("aws:ResourceTag/"+t.Key, t.Value)
		c.set("iam:ResourceTag/"+t.Key, t.Value)
	}
}

// boundary adds the condition key of a permissions boundary. It is absent if there is none.
func (c conditionContext) boundary(arn string) conditionContext {
	if arn != "" {
		c.set("iam:PermissionsBoundary", arn)
	}
	return c
}
