package check

import (
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// RoleTags judges the tags of a role that sync created. foreign are the keys that the policy
// does not set.
func RoleTags(role policy.ARN, foreign []string) Finding {
	if len(foreign) == 0 {
		return Passed(RoleExists, About{}, "%s", role)
	}
	untag := append(Command{"aws", "iam", "untag-role", "--role-name", role.RoleName(), "--tag-keys"}, foreign...)
	return Warned(
		RoleExists,
		About{},
		NewFix("name these tags in trust.tags, or remove them", untag),
		"%s has tags that the policy does not ask for, and other systems may give it rights because of them: %s",
		role,
		strings.Join(foreign, ", "),
	)
}
