package awsiam

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/policy/plan"
)

const (
	// rotation is the number of observations in which every role is read once.
	rotation = 36
	// listed is the number of roles per page; IAM may return fewer.
	listed = 1000
)

// cachedRole is a role as it was last read. It keeps those parts that lists do not contain.
type cachedRole struct {
	role plan.Role // zero if there was none
	id   string    // the id in lists; a different id means another role with the same name
	pass int
}

// listRoles returns the roles on the target's path, and the roles of the target that are on
// another path. A list contains trust documents, so a manual change of trust is found at once.
// The other parts of a role need two reads. listRoles makes them for a role that is new or
// has a new trust document. Each pass also reads some of the cached roles, so that all
// roles are read within [rotation] passes.
//
// The policies that others gave to a role need two more reads. If first is true, the first read
// of a role includes them; otherwise they wait until the rotation reads the role.
func (a *account) listRoles(ctx context.Context, target plan.Target, first bool) (map[string]plan.Role, error) {
	a.pass++
	roles, ids, err := a.list(ctx, target.Path)
	if err != nil {
		return nil, err
	}
	var due, cached []string
	for _, name := range names(roles, target.Roles) {
		d, read := a.roleCache[name]
		if !read || d.id != ids[name] || d.id != "" && d.role.Trust != roles[name].Trust {
			due = append(due, name)
		} else {
			cached = append(cached, name)
		}
	}
	slices.SortStableFunc(cached, func(x, y string) int { return cmp.Compare(a.roleCache[x].pass, a.roleCache[y].pass) })
	due = append(due, cached[:(len(cached)+rotation-1)/rotation]...)
	for _, name := range due {
		role, err := a.readRole(ctx, name)
		if err != nil {
			return nil, err
		}
		if _, read := a.roleCache[name]; !role.ARN.IsZero() && (read || first) {
			if err := a.listFurther(ctx, name); err != nil {
				return nil, err
			}
		}
		a.roleCache[name] = cachedRole{role, ids[name], a.pass}
	}
	found := map[string]plan.Role{}
	for _, name := range names(roles, target.Roles) {
		if role := a.roleCache[name].role; !role.ARN.IsZero() {
			if l, is := roles[name]; is && !slices.Contains(due, name) {
				role.Trust, role.MaxSession, role.Description = l.Trust, l.MaxSession, l.Description
			}
			role.Further, role.FurtherProblem = a.further[name].names, a.further[name].problem
			found[name] = role
		}
	}
	for name := range a.roleCache {
		if _, is := roles[name]; !is && !slices.Contains(target.Roles, name) {
			delete(a.roleCache, name)
			delete(a.further, name)
		}
	}
	return found, nil
}

// list returns the roles on a path, and their ids, by name.
func (a *account) list(ctx context.Context, path string) (roles map[string]plan.Role, ids map[string]string, err error) {
	roles, ids = map[string]plan.Role{}, map[string]string{}
	pages := iam.NewListRolesPaginator(a.iam, &iam.ListRolesInput{PathPrefix: &path, MaxItems: aws.Int32(listed)})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, nil, normalizeError(err)
		}
		for i := range page.Roles {
			role, err := roleOf(&page.Roles[i])
			if err != nil {
				return nil, nil, fmt.Errorf("ListRoles: %w", err)
			}
			roles[role.ARN.RoleName()], ids[role.ARN.RoleName()] = *role, aws.ToString(page.Roles[i].RoleId)
		}
	}
	return roles, ids, nil
}

// names returns the names in roles and more, sorted.
func names(roles map[string]plan.Role, more []string) []string {
	list := slices.Clone(more)
	for name := range roles {
		list = append(list, name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// readRole returns a role with its permission document; zero if there is none.
func (a *account) readRole(ctx context.Context, name string) (plan.Role, error) {
	role, err := a.role(ctx, name)
	if err != nil || role == nil {
		return plan.Role{}, err
	}
	role.Permissions, err = a.permissions(ctx, name)
	return *role, err
}
