package awstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// managedPolicy is one state of a customer managed policy, or of a managed policy of AWS.
type managedPolicy struct {
	name, path, id, arn string
	created             time.Time
	tags                []tag
	// versions are the existing versions, oldest first. document is that of the default version.
	versions []policyVersion
	made     int // the number of versions that were ever created
	document document
}

type policyVersion struct {
	id       string
	created  time.Time
	document document
}

// maxPolicyVersions is the largest number of versions of a policy.
const maxPolicyVersions = 5

// with returns the policy with one more version, which becomes the default.
func (p managedPolicy) with(d document, at time.Time) *managedPolicy {
	p.made++
	p.versions = append(slices.Clone(p.versions), policyVersion{"v" + strconv.Itoa(p.made), at, d})
	p.document = d
	return &p
}

// defaultID returns the newest version's id. Here every new version becomes the default.
func (p *managedPolicy) defaultID() string { return p.versions[len(p.versions)-1].id }

// awsManagedPolicies are AWS's managed policies about AMP, as AWS publishes them.
var awsManagedPolicies = map[string]string{
	"AmazonPrometheusRemoteWriteAccess": `{"Version":"2012-10-17","Statement":[{"Action":["aps:RemoteWrite"],"Effect":"Allow",` +
		`"Resource":"*"}]}`,
	"AmazonPrometheusQueryAccess": `{"Version":"2012-10-17","Statement":[{"Action":["aps:GetLabels","aps:GetMetricMetadata",` +
		`"aps:GetSeries","aps:QueryMetrics"],"Effect":"Allow","Resource":"*"}]}`,
}

func (a *Account) addAWSManaged(name, text string) {
	d, err := parseDocument(identityPolicy, text)
	if err != nil {
		panic("AWS managed policy " + name + " does not parse: " + err.Error())
	}
	arn := "arn:" + a.Partition + ":iam::aws:policy/" + name
	p := managedPolicy{name: name, path: "/", id: "ANPA" + randomID(17), arn: arn}
	a.policies.set(arn, p.with(d, time.Time{}), time.Time{})
}

// PutManagedPolicy creates a customer managed policy (JSON), or replaces the text of an existing
// one, and returns its ARN. Tests use it to set up a permissions boundary.
func (a *Account) PutManagedPolicy(name, policy string) (arn string, err error) {
	d, err := parseDocument(identityPolicy, policy)
	if err != nil {
		return "", err
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.storePolicy(name, "/", d, nil).arn, nil
}

func (a *Account) storePolicy(name, path string, d document, tags []tag) *managedPolicy {
	fresh := managedPolicy{
		name: name, path: path, id: "ANPA" + randomID(17), arn: a.arn("iam", "", "policy"+path+name),
		created: a.cloud.now(), tags: tags,
	}
	p := fresh.with(d, fresh.created)
	a.policies.set(p.arn, p, p.created)
	return p
}

type policyXML struct {
	PolicyName                    string
	PolicyID                      string `xml:"PolicyId"`
	ARN                           string `xml:"Arn"`
	Path                          string
	DefaultVersionID              string `xml:"DefaultVersionId"`
	AttachmentCount               int
	PermissionsBoundaryUsageCount int
	IsAttachable                  bool
	CreateDate                    iso8601
	UpdateDate                    iso8601
	Tags                          *members[tag]
}

type policyResult struct{ Policy policyXML }

func (a *Account) policyXML(p *managedPolicy) policyXML {
	x := policyXML{
		PolicyName: p.name, PolicyID: p.id, ARN: p.arn, Path: p.path, DefaultVersionID: p.defaultID(),
		IsAttachable: true, CreateDate: iso8601(p.created), UpdateDate: iso8601(p.versions[len(p.versions)-1].created),
	}
	if len(p.tags) > 0 {
		x.Tags = &members[tag]{p.tags}
	}
	for _, t := range a.roles {
		if r := t.latest(); r != nil {
			if slices.Contains(r.attached, p.arn) {
				x.AttachmentCount++
			}
			if r.boundary == p.arn {
				x.PermissionsBoundaryUsageCount++
			}
		}
	}
	return x
}

func createPolicy(q *queryCall) (any, error) {
	a, name, path, text := q.account(), q.form.Get("PolicyName"), q.form.Get("Path"), q.form.Get("PolicyDocument")
	if path == "" {
		path = "/"
	}
	if err := checkName(name, "policyName", validPolicyName); err != nil {
		return nil, err
	}
	tags := q.form.tags()
	if err := checkTags(tags); err != nil {
		return nil, err
	}
	for _, action := range []string{"iam:CreatePolicy", "iam:TagPolicy"} {
		if action == "iam:TagPolicy" && len(tags) == 0 {
			continue
		}
		if err := q.authorize(action, a.arn("iam", "", "policy"+path+name), conditionContext{}.requestTags(tags)); err != nil {
			return nil, err
		}
	}
	if len(withoutSpace(text)) > a.quotas.ManagedPolicy {
		return nil, apiErrf(409, "LimitExceeded", "Cannot exceed quota for PolicySize: %d", a.quotas.ManagedPolicy)
	}
	d, err := parseDocument(identityPolicy, text)
	if err != nil {
		return nil, err
	}
	for _, t := range a.policies {
		if p := t.latest(); p != nil && strings.EqualFold(p.name, name) && !strings.Contains(p.arn, "::aws:") {
			return nil, apiErrf(409, "EntityAlreadyExists", "A policy called %s already exists. Duplicate names are not allowed.", name)
		}
	}
	return policyResult{a.policyXML(a.storePolicy(name, path, d, tags))}, nil
}

// openPolicy finds the managed policy of a call and authorises the call.
func (q *queryCall) openPolicy() (*managedPolicy, error) {
	arn := q.form.Get("PolicyArn")
	p := q.account().policies[arn].latest()
	context := conditionContext{}
	if p != nil {
		context.resourceTags(p.tags)
	}
	if err := q.authorize("iam:"+q.record.Action, arn, context); err != nil {
		return nil, err
	}
	if p == nil {
		return nil, apiErrf(404, "NoSuchEntity", "Policy %s was not found.", arn)
	}
	return p, nil
}

func getPolicy(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	return policyResult{q.account().policyXML(p)}, nil
}

func getPolicyVersion(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(p.versions, func(v policyVersion) bool { return v.id == q.form.Get("VersionId") })
	if i < 0 {
		return nil, apiErrf(
			404,
			"NoSuchEntity",
			"Policy %s version %s does not exist or is not attachable.",
			p.arn,
			q.form.Get("VersionId"),
		)
	}
	x := p.versionXML(i)
	x.Document = encodedPolicy(p.versions[i].document.canonical())
	return struct{ PolicyVersion policyVersionXML }{x}, nil
}

type policyVersionXML struct {
	Document         string `xml:",omitempty"`
	VersionID        string `xml:"VersionId"`
	IsDefaultVersion bool
	CreateDate       iso8601
}

func (p *managedPolicy) versionXML(i int) policyVersionXML {
	v := p.versions[i]
	return policyVersionXML{VersionID: v.id, IsDefaultVersion: v.id == p.defaultID(), CreateDate: iso8601(v.created)}
}

func listPolicyVersions(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	var list []policyVersionXML
	for i := range p.versions {
		list = append(list, p.versionXML(i))
	}
	slices.Reverse(list) // newest first
	return pageOf(q, "Versions", list)
}

func createPolicyVersion(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	text := q.form.Get("PolicyDocument")
	if limit := q.account().quotas.ManagedPolicy; len(withoutSpace(text)) > limit {
		return nil, apiErrf(409, "LimitExceeded", "Cannot exceed quota for PolicySize: %d", limit)
	}
	d, err := parseDocument(identityPolicy, text)
	if err != nil {
		return nil, err
	}
	if q.form.Get("SetAsDefault") != "true" {
		return nil, apiErr(501, "NotImplemented", "A version that is not the default is not here")
	}
	if len(p.versions) == maxPolicyVersions {
		return nil, apiErrf(
			409,
			"LimitExceeded",
			"A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.",
			maxPolicyVersions,
		)
	}
	now := q.cloud.now()
	next := p.with(d, now)
	q.account().policies.set(p.arn, next, now)
	return struct{ PolicyVersion policyVersionXML }{next.versionXML(len(next.versions) - 1)}, nil
}

func deletePolicyVersion(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	id := q.form.Get("VersionId")
	i := slices.IndexFunc(p.versions, func(v policyVersion) bool { return v.id == id })
	switch {
	case i < 0:
		return nil, apiErrf(404, "NoSuchEntity", "Policy %s version %s does not exist or is not attachable.", p.arn, id)
	case id == p.defaultID():
		return nil, apiErr(409, "DeleteConflict", "Cannot delete the default version of a policy.")
	}
	next := *p
	next.versions = slices.Delete(slices.Clone(p.versions), i, i+1)
	q.account().policies.set(p.arn, &next, q.cloud.now())
	return nil, nil
}

func tagPolicy(q *queryCall) (any, error) {
	added := q.form.tags()
	if err := checkTags(added); err != nil {
		return nil, err
	}
	arn := q.form.Get("PolicyArn")
	p := q.account().policies[arn].latest()
	context := conditionContext{}.requestTags(added)
	if p != nil {
		context.resourceTags(p.tags)
	}
	if err := q.authorize("iam:TagPolicy", arn, context); err != nil {
		return nil, err
	}
	if p == nil {
		return nil, apiErrf(404, "NoSuchEntity", "Policy %s was not found.", arn)
	}
	next := *p
	next.tags = withTags(p.tags, added)
	if err := q.account().checkTagQuota(next.tags); err != nil {
		return nil, err
	}
	q.account().policies.set(p.arn, &next, q.cloud.now())
	return nil, nil
}

func listPolicyTags(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	return struct {
		Tags        members[tag]
		IsTruncated bool
	}{Tags: members[tag]{p.tags}}, nil
}

func deletePolicy(q *queryCall) (any, error) {
	p, err := q.openPolicy()
	if err != nil {
		return nil, err
	}
	if x := q.account().policyXML(p); x.AttachmentCount+x.PermissionsBoundaryUsageCount > 0 {
		return nil, apiErr(409, "DeleteConflict", "Cannot delete a policy attached to entities.")
	}
	q.account().policies.set(p.arn, nil, q.cloud.now())
	return nil, nil
}

// withBoundary adds the role's boundary as condition key, for calls that change what a role may do.
func withBoundary(r *role, context conditionContext) { context.boundary(r.boundary) }

func putRolePolicy(q *queryCall) (any, error) {
	name, text := q.form.Get("PolicyName"), q.form.Get("PolicyDocument")
	if err := checkName(name, "policyName", validPolicyName); err != nil {
		return nil, err
	}
	return nil, q.changeRole(withBoundary, func(r *role) error {
		d, err := parseDocument(identityPolicy, text)
		if err != nil {
			return err
		}
		r.inline[name], r.inlineSize[name] = d, len(withoutSpace(text))
		total := 0
		for _, size := range r.inlineSize {
			total += size
		}
		if limit := q.account().quotas.InlinePolicies; total > limit {
			return apiErrf(409, "LimitExceeded", "Maximum policy size of %d bytes exceeded for role %s", limit, r.name)
		}
		return nil
	})
}

func getRolePolicy(q *queryCall) (any, error) {
	r, err := q.openRole(true, nil)
	if err != nil {
		return nil, err
	}
	name := q.form.Get("PolicyName")
	d, ok := r.inline[name]
	if !ok {
		return nil, apiErrf(404, "NoSuchEntity", "The role policy with name %s cannot be found.", name)
	}
	return struct{ RoleName, PolicyName, PolicyDocument string }{r.name, name, encodedPolicy(d.canonical())}, nil
}

func listRolePolicies(q *queryCall) (any, error) {
	r, err := q.openRole(true, nil)
	if err != nil {
		return nil, err
	}
	return pageOf(q, "PolicyNames", slices.Sorted(maps.Keys(r.inline)))
}

func deleteRolePolicy(q *queryCall) (any, error) {
	name := q.form.Get("PolicyName")
	return nil, q.changeRole(withBoundary, func(r *role) error {
		if _, ok := r.inline[name]; !ok {
			return apiErrf(404, "NoSuchEntity", "The role policy with name %s cannot be found.", name)
		}
		delete(r.inline, name)
		delete(r.inlineSize, name)
		return nil
	})
}

// withPolicyARN adds the managed policy of a call as condition key.
func (q *queryCall) withPolicyARN(r *role, context conditionContext) {
	withBoundary(r, context)
	context.set("iam:PolicyARN", q.form.Get("PolicyArn"))
}

func attachRolePolicy(q *queryCall) (any, error) {
	arn := q.form.Get("PolicyArn")
	return nil, q.changeRole(q.withPolicyARN, func(r *role) error {
		if q.account().policies[arn].latest() == nil {
			return apiErrf(404, "NoSuchEntity", "Policy %s does not exist or is not attachable.", arn)
		}
		if !slices.Contains(r.attached, arn) {
			r.attached = append(r.attached, arn)
		}
		return nil
	})
}

func detachRolePolicy(q *queryCall) (any, error) {
	arn := q.form.Get("PolicyArn")
	return nil, q.changeRole(q.withPolicyARN, func(r *role) error {
		i := slices.Index(r.attached, arn)
		if i < 0 {
			return apiErrf(404, "NoSuchEntity", "Policy %s was not found.", arn)
		}
		r.attached = slices.Delete(r.attached, i, i+1)
		return nil
	})
}

func listAttachedRolePolicies(q *queryCall) (any, error) {
	r, err := q.openRole(true, nil)
	if err != nil {
		return nil, err
	}
	type attached struct {
		PolicyName string
		PolicyARN  string `xml:"PolicyArn"`
	}
	var found []attached
	for _, arn := range r.attached {
		if p := q.account().policies[arn].latest(); p != nil {
			found = append(found, attached{p.name, arn})
		}
	}
	return pageOf(q, "AttachedPolicies", found)
}

func putBoundary(q *queryCall) (any, error) {
	arn := q.form.Get("PermissionsBoundary")
	// For this call, the condition key is the boundary in the request.
	keys := func(_ *role, context conditionContext) { context.boundary(arn) }
	return nil, q.changeRole(keys, func(r *role) error {
		if q.account().policies[arn].latest() == nil {
			return apiErrf(404, "NoSuchEntity", "Scope ARN: %s does not exist or is not attachable.", arn)
		}
		r.boundary = arn
		return nil
	})
}

func deleteBoundary(q *queryCall) (any, error) {
	return nil, q.changeRole(withBoundary, func(r *role) error {
		r.boundary = ""
		return nil
	})
}
