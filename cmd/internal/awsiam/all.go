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
	// rotation is in how many observations every role is read once.
	rotation = 36
	// listed is how many roles IAM is asked for at once; it may give fewer.
	listed = 1000
)

// detail is a role as it was read: what lists do not show of it lasts until the
// role's turn comes again.
type detail struct {
	role plan.Role // the zero: there was none
	id   string    // that a list gives it; another one is another role of its name
	pass int
}

// listRoles are the roles on the target's path, and those of its names that lie
// elsewhere. A list has their trust documents, so a change by hand to whom they
// trust is found at once. What else there is of a role takes two reads. They are
// made where a role is new, or its trust document another than it was; and in
// each pass for some others, so that it takes [rotation] passes to see them all.
func (a *account) listRoles(ctx context.Context, target plan.Target) (map[string]plan.Role, error) {
	a.pass++
	roles, ids, err := a.list(ctx, target.Path)
	if err != nil {
		return nil, err
	}
	var due, known []string
	for _, name := range names(roles, target.Roles) {
		d, read := a.known[name]
		if !read || d.id != ids[name] || d.id != "" && d.role.Trust != roles[name].Trust {
			due = append(due, name)
		} else {
			known = append(known, name)
		}
	}
	slices.SortStableFunc(known, func(x, y string) int { return cmp.Compare(a.known[x].pass, a.known[y].pass) })
	due = append(due, known[:(len(known)+rotation-1)/rotation]...)
	for _, name := range due {
		role, err := a.readRole(ctx, name)
		if err != nil {
			return nil, err
		}
		a.known[name] = detail{role, ids[name], a.pass}
	}
	found := map[string]plan.Role{}
	for _, name := range names(roles, target.Roles) {
		if role := a.known[name].role; !role.ARN.IsZero() {
			if l, is := roles[name]; is && !slices.Contains(due, name) {
				role.Trust, role.MaxSession, role.Description = l.Trust, l.MaxSession, l.Description
			}
			found[name] = role
		}
	}
	for name := range a.known {
		if _, is := roles[name]; !is && !slices.Contains(target.Roles, name) {
			delete(a.known, name)
		}
	}
	return found, nil
}

// list are the roles on a path, and their ids, by name.
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

// names are all those of either, sorted.
func names(roles map[string]plan.Role, more []string) []string {
	list := slices.Clone(more)
	for name := range roles {
		list = append(list, name)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// readRole is a role with its permission document; the zero: there is none.
func (a *account) readRole(ctx context.Context, name string) (plan.Role, error) {
	role, err := a.role(ctx, name)
	if err != nil || role == nil {
		return plan.Role{}, err
	}
	role.Permissions, err = a.permissions(ctx, name)
	return *role, err
}
