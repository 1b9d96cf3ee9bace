package awstest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// role is one version of a role.
type role struct {
	name, path, id, arn string
	description         string
	created             time.Time
	maxSession          int // seconds
	trust               document
	boundary            string // ARN; empty if there is none
	inline              map[string]document
	inlineSize          map[string]int // characters that count against the quota
	attached            []string       // ARNs
	tags                []tag
}

func (r *role) clone() *role {
	c := *r
	c.inline, c.inlineSize = maps.Clone(r.inline), maps.Clone(r.inlineSize)
	c.attached, c.tags = slices.Clone(r.attached), slices.Clone(r.tags)
	return &c
}

type boundaryXML struct {
	Type string `xml:"PermissionsBoundaryType"`
	ARN  string `xml:"PermissionsBoundaryArn"`
}

type roleXML struct {
	Path                     string
	RoleName                 string
	RoleID                   string `xml:"RoleId"`
	ARN                      string `xml:"Arn"`
	CreateDate               iso8601
	AssumeRolePolicyDocument string
	Description              string `xml:",omitempty"`
	MaxSessionDuration       int
	PermissionsBoundary      *boundaryXML
	Tags                     *members[tag]
}

type roleResult struct{ Role roleXML }

// roleXML returns the role as GetRole shows it.
func (c *Cloud) roleXML(r *role) roleXML {
	x := c.roleSummaryXML(r)
	if r.boundary != "" {
		x.PermissionsBoundary = &boundaryXML{"Policy", r.boundary}
	}
	if len(r.tags) > 0 {
		x.Tags = &members[tag]{r.tags}
	}
	return x
}

// roleSummaryXML returns the role as ListRoles shows it: without tags and boundary.
func (c *Cloud) roleSummaryXML(r *role) roleXML {
	return roleXML{
		Path: r.path, RoleName: r.name, RoleID: r.id, ARN: r.arn, CreateDate: iso8601(r.created),
		AssumeRolePolicyDocument: encodedPolicy(c.showPrincipals(r.trust).canonical()),
		Description:              r.description, MaxSessionDuration: r.maxSession,
	}
}

var (
	validRoleName   = regexp.MustCompile(`^[\w+=,.@-]{1,64}$`)
	validPolicyName = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	validPath       = regexp.MustCompile(`^(/|/[\x21-\x7E]{1,510}/)$`)
)

func checkName(name, parameter string, valid *regexp.Regexp) error {
	if !valid.MatchString(name) {
		return invalid(name, parameter, "Member must satisfy regular expression pattern: "+valid.String())
	}
	return nil
}

func createRole(q *queryCall) (any, error) {
	a := q.account()
	r := &role{
		name: q.form.Get("RoleName"), path: q.form.Get("Path"), id: "AROA" + randomID(17),
		description: q.form.Get("Description"), created: q.cloud.now(), boundary: q.form.Get("PermissionsBoundary"),
		inline: map[string]document{}, inlineSize: map[string]int{}, tags: q.form.tags(),
	}
	if r.path == "" {
		r.path = "/"
	}
	if err := checkName(r.name, "roleName", validRoleName); err != nil {
		return nil, err
	}
	if !validPath.MatchString(r.path) {
		return nil, apiErr(
			400,
			"ValidationError",
			"The specified value for path is invalid. It must begin and end with / and contain only alphanumeric characters and/or / characters.",
		)
	}
	if err := checkTags(r.tags); err != nil {
		return nil, err
	}
	var err error
	if r.maxSession, err = q.form.number("MaxSessionDuration", 3600, 3600, 43200); err != nil {
		return nil, err
	}
	r.arn = a.arn("iam", "", "role"+r.path+r.name)
	context := conditionContext{}.requestTags(r.tags).boundary(r.boundary)
	if err := q.authorize("iam:CreateRole", r.arn, context); err != nil {
		return nil, err
	}
	if len(r.tags) > 0 {
		if err := q.authorize("iam:TagRole", r.arn, context); err != nil {
			return nil, err
		}
	}
	if r.trust, err = q.trustDocument(q.form.Get("AssumeRolePolicyDocument")); err != nil {
		return nil, err
	}
	if r.boundary != "" && a.policies[r.boundary].latest() == nil {
		return nil, apiErrf(404, "NoSuchEntity", "Scope ARN: %s does not exist or is not attachable.", r.boundary)
	}
	key := strings.ToLower(r.name)
	switch {
	case a.roles[key].latest() != nil:
		return nil, apiErrf(409, "EntityAlreadyExists", "Role with name %s already exists.", r.name)
	case a.roles.count() >= a.quotas.Roles:
		return nil, apiErrf(409, "LimitExceeded", "Cannot exceed quota for RolesPerAccount: %d", a.quotas.Roles)
	}
	if err := a.checkTagQuota(r.tags); err != nil {
		return nil, err
	}
	a.roles.set(key, r, r.created)
	return roleResult{q.cloud.roleXML(r)}, nil
}

// trustDocument parses a trust policy, and checks the quota and that its principals
// exist.
func (q *queryCall) trustDocument(text string) (document, error) {
	if n, limit := len([]rune(text)), q.account().quotas.TrustPolicy; n > limit {
		return document{}, apiErrf(409, "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: %d", limit)
	}
	d, err := parseDocument(trustPolicy, text)
	if err != nil {
		return d, err
	}
	return d, q.cloud.resolvePrincipals(&d)
}

// openRole finds the role of a call and authorises the call. IAM knows no path of a role that does not exist.
// So a caller with permissions for a path gets AccessDenied and does not learn that it does not exist.
func (q *queryCall) openRole(read bool, keys func(*role, conditionContext)) (*role, error) {
	a, name := q.account(), q.form.Get("RoleName")
	if err := checkName(name, "roleName", validRoleName); err != nil {
		return nil, err
	}
	timeline := a.roles[strings.ToLower(name)]
	r := timeline.latest()
	if read {
		r = timeline.seen(q.readTime())
	}
	arn, context := a.arn("iam", "", "role/"+name), conditionContext{}
	if r != nil {
		arn = r.arn
		context.resourceTags(r.tags)
		if keys != nil {
			keys(r, context)
		}
	}
	if err := q.authorize("iam:"+q.record.Action, arn, context); err != nil {
		return nil, err
	}
	if r == nil {
		return nil, apiErrf(404, "NoSuchEntity", "The role with name %s cannot be found.", name)
	}
	return r, nil
}

// changeRole opens the role of a call and stores the result of change.
func (q *queryCall) changeRole(keys func(*role, conditionContext), change func(*role) error) error {
	old, err := q.openRole(false, keys)
	if err != nil {
		return err
	}
	r := old.clone()
	if err := change(r); err != nil {
		return err
	}
	q.account().roles.set(strings.ToLower(r.name), r, q.cloud.now())
	return nil
}

func getRole(q *queryCall) (any, error) {
	r, err := q.openRole(true, nil)
	if err != nil {
		return nil, err
	}
	return roleResult{q.cloud.roleXML(r)}, nil
}

func listRoles(q *queryCall) (any, error) {
	if err := q.authorize("iam:ListRoles", "*", nil); err != nil {
		return nil, err
	}
	var found []roleXML
	for _, key := range slices.Sorted(maps.Keys(q.account().roles)) {
		r := q.account().roles[key].seen(q.readTime())
		if r != nil && strings.HasPrefix(r.path, q.form.Get("PathPrefix")) {
			found = append(found, q.cloud.roleSummaryXML(r))
		}
	}
	return pageOf(q, "Roles", found)
}

func updateRole(q *queryCall) (any, error) {
	// As in AWS, a missing duration becomes one hour.
	duration, err := q.form.number("MaxSessionDuration", 3600, 3600, 43200)
	if err != nil {
		return nil, err
	}
	err = q.changeRole(nil, func(r *role) error {
		r.maxSession = duration
		if q.form.Has("Description") {
			r.description = q.form.Get("Description")
		}
		return nil
	})
	return struct{}{}, err
}

func deleteRole(q *queryCall) (any, error) {
	r, err := q.openRole(false, nil)
	if err != nil {
		return nil, err
	}
	switch {
	case len(r.attached) > 0:
		return nil, apiErr(409, "DeleteConflict", "Cannot delete entity, must detach all policies first.")
	case len(r.inline) > 0:
		return nil, apiErr(409, "DeleteConflict", "Cannot delete entity, must delete policies first.")
	}
	q.account().roles.set(strings.ToLower(r.name), nil, q.cloud.now())
	return nil, nil
}

func updateTrust(q *queryCall) (any, error) {
	return nil, q.changeRole(nil, func(r *role) (err error) {
		r.trust, err = q.trustDocument(q.form.Get("PolicyDocument"))
		return err
	})
}

func tagRole(q *queryCall) (any, error) {
	tags := q.form.tags()
	if err := checkTags(tags); err != nil {
		return nil, err
	}
	keys := func(_ *role, context conditionContext) { context.requestTags(tags) }
	return nil, q.changeRole(keys, func(r *role) error {
		r.tags = withTags(r.tags, tags)
		return q.account().checkTagQuota(r.tags)
	})
}

func untagRole(q *queryCall) (any, error) {
	names := q.form.list("TagKeys")
	keys := func(_ *role, context conditionContext) { context.set("aws:TagKeys", names...) }
	return nil, q.changeRole(keys, func(r *role) error {
		r.tags = withoutTags(r.tags, names)
		return nil
	})
}

func listRoleTags(q *queryCall) (any, error) {
	r, err := q.openRole(true, nil)
	if err != nil {
		return nil, err
	}
	return pageOf(q, "Tags", r.tags)
}
