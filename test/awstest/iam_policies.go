package awstest

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// managedPolicy is a customer managed policy, or one of AWS's. Policies here have one version, v1.
type managedPolicy struct {
	name, path, id, arn string
	created             time.Time
	document            document
}

// awsManagedPolicies are the ones of AWS that concern AMP, as AWS publishes them.
var awsManagedPolicies = map[string]string{
	"AmazonPrometheusRemoteWriteAccess": `{"Version":"2012-10-17","Statement":[{"Action":["aps:RemoteWrite"],"Effect":"Allow","Resource":"*"}]}`,
	"AmazonPrometheusQueryAccess":       `{"Version":"2012-10-17","Statement":[{"Action":["aps:GetLabels","aps:GetMetricMetadata","aps:GetSeries","aps:QueryMetrics"],"Effect":"Allow","Resource":"*"}]}`,
}

func (a *Account) addAWSManaged(name, text string) {
	d, err := parseDocument(identityPolicy, text)
	if err != nil {
		panic("AWS managed policy " + name + " does not parse: " + err.Error())
	}
	arn := "arn:" + a.Partition + ":iam::aws:policy/" + name
	a.policies.set(arn, &managedPolicy{name: name, path: "/", id: "ANPA" + randomID(17), arn: arn, document: d}, time.Time{})
}

// PutManagedPolicy creates a customer managed policy (JSON), or gives an existing one that
// text, and returns its ARN: that is how a test sets up a permissions boundary.
func (a *Account) PutManagedPolicy(name, policy string) (arn string, err error) {
	d, err := parseDocument(identityPolicy, policy)
	if err != nil {
		return "", err
	}
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	return a.storePolicy(name, "/", d).arn, nil
}

func (a *Account) storePolicy(name, path string, d document) *managedPolicy {
	p := &managedPolicy{
		name: name, path: path, id: "ANPA" + randomID(17), arn: a.arn("iam", "", "policy"+path+name),
		created: a.cloud.now(), document: d,
	}
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
}

type policyResult struct{ Policy policyXML }

func (a *Account) policyXML(p *managedPolicy) policyXML {
	x := policyXML{
		PolicyName: p.name, PolicyID: p.id, ARN: p.arn, Path: p.path, DefaultVersionID: "v1",
		IsAttachable: true, CreateDate: iso8601(p.created), UpdateDate: iso8601(p.created),
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
	if err := q.authorize("iam:CreatePolicy", a.arn("iam", "", "policy"+path+name), conditionContext{}); err != nil {
		return nil, err
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
	return policyResult{a.policyXML(a.storePolicy(name, path, d))}, nil
}

// openPolicy finds the managed policy that a call names and authorises the call.
func (q *queryCall) openPolicy() (*managedPolicy, error) {
	arn := q.form.Get("PolicyArn")
	if err := q.authorize("iam:"+q.record.Action, arn, conditionContext{}); err != nil {
		return nil, err
	}
	p := q.account().policies[arn].latest()
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
	if v := q.form.Get("VersionId"); v != "v1" {
		return nil, apiErrf(404, "NoSuchEntity", "Policy %s version %s does not exist or is not attachable.", p.arn, v)
	}
	type versionXML struct {
		Document         string
		VersionID        string `xml:"VersionId"`
		IsDefaultVersion bool
		CreateDate       iso8601
	}
	return struct{ PolicyVersion versionXML }{
		versionXML{encodedPolicy(p.document.canonical()), "v1", true, iso8601(p.created)},
	}, nil
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

// withBoundary tells conditions the role's boundary, for the calls that widen or narrow what a role may do.
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
	names, page, err := paginate(q.form, slices.Sorted(maps.Keys(r.inline)))
	return struct {
		PolicyNames memberStrings
		IsTruncated bool
		Marker      string `xml:",omitempty"`
	}{memberStrings{names}, page.IsTruncated, page.Marker}, err
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

// withPolicyARN tells conditions the managed policy that a call is about.
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
	type members struct {
		Members []attached `xml:"member"`
	}
	var found []attached
	for _, arn := range r.attached {
		if p := q.account().policies[arn].latest(); p != nil {
			found = append(found, attached{p.name, arn})
		}
	}
	policies, page, err := paginate(q.form, found)
	return struct {
		AttachedPolicies members
		IsTruncated      bool
		Marker           string `xml:",omitempty"`
	}{members{policies}, page.IsTruncated, page.Marker}, err
}

func putBoundary(q *queryCall) (any, error) {
	arn := q.form.Get("PermissionsBoundary")
	// Here the condition key is the boundary that the call asks for.
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
