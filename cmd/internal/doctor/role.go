package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// destinationRole is a role that pods assume for a destination.
type destinationRole struct {
	arn         policy.ARN
	destination policy.Destination
	// about names the subject too where the role is for it alone.
	about check.About
	// subjects are those that assume it, of the ones that are looked at.
	subjects []*subject
}

// rolesOf are the roles for d: one, or one for each subject (trust.roleScope).
func (x *runner) rolesOf(d policy.Destination) []destinationRole {
	granted := slices.DeleteFunc(slices.Clone(x.subjects), func(s *subject) bool {
		return !slices.ContainsFunc(s.destinations, func(to policy.Destination) bool { return to.Name == d.Name })
	})
	if x.policy.Trust.RoleScope != policy.RoleScopeServiceAccount || !d.Role.IsZero() {
		role := x.policy.Role(d)
		return []destinationRole{{role, d, check.About{Destination: d.Name, Account: role.Account}, granted}}
	}
	roles := make([]destinationRole, len(granted))
	for i, s := range granted {
		roles[i] = destinationRole{x.policy.RoleFor(d, s.Subject), d, x.between(s, d), []*subject{s}}
	}
	return roles
}

// makeRole, writeTrust and writePermission are sync's to do, or else commands
// for whoever keeps the role.

func (x *runner) makeRole(r destinationRole) check.Fix {
	if x.managed(r.destination) {
		return x.source.sync()
	}
	name := r.arn.RoleName()
	way := strings.TrimSuffix(strings.TrimPrefix(r.arn.Resource, "role"), name)
	mend := x.writePermission(r)
	mend.Summary = "make the role (with a permissions boundary, if your account has one), or let sync keep it (trust.manage: roles)"
	mend.Commands = append([]check.Command{{"aws", "iam", "create-role", "--role-name", name, "--path", way, "--assume-role-policy-document", x.trust(r)}}, mend.Commands...)
	return mend
}

// trust is the document that lets in whoever assumes the role.
func (x *runner) trust(r destinationRole) string {
	subjects := make([]policy.Subject, len(r.subjects))
	for i, s := range r.subjects {
		subjects[i] = s.Subject
	}
	return policy.TrustDocument(x.target(r.destination).Provider, x.issuer, x.policy.Token.Audience, subjects).String()
}

func (x *runner) writeTrust(r destinationRole, role *plan.Role, want check.Wanted) check.Fix {
	if x.managed(r.destination) {
		mend := x.source.sync()
		// One subject alone has room, whoever else stands there now.
		if r.about.Subject == "" && want.Full(role.Trust, plan.TrustQuota) {
			mend.Summary = fmt.Sprintf("the trust document has no room for it below AWS's usual %d characters: have the account's quota raised (role trust policy length) and tell sync (--trust-quota), "+
				"or give each service account its own role (trust.roleScope: serviceAccount), or grant fewer; then ", plan.TrustQuota) + mend.Summary
		}
		return mend
	}
	return check.NewFix("write the trust document anew (statements of other clusters in it have to be added)", check.Command{"aws", "iam", "update-assume-role-policy",
		"--role-name", r.arn.RoleName(), "--policy-document", x.trust(r)})
}

func (x *runner) writePermission(r destinationRole) check.Fix {
	if x.managed(r.destination) {
		return x.source.sync()
	}
	return check.NewFix("give the role a permission document", check.Command{"aws", "iam", "put-role-policy",
		"--role-name", r.arn.RoleName(), "--policy-name", plan.PolicyName, "--policy-document", policy.PermissionDocument(r.destination).String()})
}
