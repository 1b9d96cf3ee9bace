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
	// about includes the subject if the role is for that subject alone.
	about check.About
	// subjects are the checked subjects that assume it.
	subjects []*subject
}

// rolesOf returns the roles for d: one, or one for each subject (trust.roleScope).
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

// fixRole, fixTrust and fixPermission return the fix for a role. If sync manages the role, the
// fix is to run sync. Otherwise it has commands for the role's administrator.

func (x *runner) fixRole(r destinationRole) check.Fix {
	if x.managed(r.destination) {
		return x.syncFix()
	}
	name := r.arn.RoleName()
	path := strings.TrimSuffix(strings.TrimPrefix(r.arn.Resource, "role"), name)
	fix := x.fixPermission(r)
	fix.Summary = "create the role (with Terraform: ampbridge plan -o terraform), or let sync manage it (trust.manage: roles)"
	fix.Commands = append(
		[]check.Command{{"aws", "iam", "create-role", "--role-name", name, "--path", path, "--assume-role-policy-document",
			x.trust(r).String()}},
		fix.Commands...)
	return fix
}

// trust returns the trust document for the subjects of the role.
func (x *runner) trust(r destinationRole) policy.Document {
	subjects := make([]policy.Subject, len(r.subjects))
	for i, s := range r.subjects {
		subjects[i] = s.Subject
	}
	return policy.TrustDocument(x.target(r.destination).Provider, x.issuer, x.policy.Token.Audience, subjects)
}

func (x *runner) fixTrust(r destinationRole, role *plan.Role, want check.WantedTrust) check.Fix {
	if x.managed(r.destination) {
		fix := x.syncFix()
		// A document for one subject alone is always below the quota.
		if r.about.Subject == "" && want.ExceedsQuota(role.Trust, plan.TrustQuota) {
			fix.Summary = fmt.Sprintf(
				"with this subject the trust document exceeds AWS's default of %d characters: request a higher quota (role trust policy "+
					"length) and pass it to sync (--trust-quota), "+
					"or give each service account its own role (trust.roleScope: serviceAccount), or grant fewer; then ",
				plan.TrustQuota,
			) + fix.Summary
		}
		return fix
	}
	return check.NewFix(
		"replace the trust document; the new one keeps the statements of others (with Terraform: ampbridge plan -o terraform)",
		check.Command{"aws", "iam", "update-assume-role-policy",
			"--role-name", r.arn.RoleName(), "--policy-document", want.MergeTrust(role.Trust, x.trust(r)).String()},
	)
}

func (x *runner) fixPermission(r destinationRole) check.Fix {
	if x.managed(r.destination) {
		return x.syncFix()
	}
	return check.NewFix("add a permission document to the role (with Terraform: ampbridge plan -o terraform)", check.Command{
		"aws",
		"iam",
		"put-role-policy",
		"--role-name",
		r.arn.RoleName(),
		"--policy-name",
		plan.PolicyName,
		"--policy-document",
		policy.PermissionDocument(r.destination).String(),
	})
}
