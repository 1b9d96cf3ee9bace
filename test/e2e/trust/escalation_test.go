package trust_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	everything = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	thumbprint = "9e99a48a9960b14926bb7f3b02e22da2b0ab7280"
)

// denied reports whether the caller's own policies refused the call. It is false for faults and for invalid
// parameters.
func denied(err error) bool {
	var answer smithy.APIError
	return errors.As(err, &answer) && answer.ErrorCode() == "AccessDenied" &&
		strings.Contains(answer.ErrorMessage(), "is not authorized to perform: ")
}

// thief is an attacker with stolen credentials and full knowledge of the account.
type thief struct {
	ctx context.Context
	iam *iam.Client
	sts *sts.Client
	own *member
}

func (f *fixture) thief(m *member, c awstest.Credentials) thief {
	return thief{f.Context(), f.client(c), sts.NewFromConfig(f.cloud.Config(c, region)), m}
}

func (t thief) create(path, name, boundary string, tags ...string) error {
	in := &iam.CreateRoleInput{RoleName: &name, Path: &path, AssumeRolePolicyDocument: new(adminsTrust), Tags: tagsOf(tags...)}
	if boundary != "" {
		in.PermissionsBoundary = new("arn:aws:iam::" + boundary)
	}
	_, err := t.iam.CreateRole(t.ctx, in)
	return err
}

func (t thief) trust(role string) error {
	_, err := t.iam.UpdateAssumeRolePolicy(
		t.ctx,
		&iam.UpdateAssumeRolePolicyInput{RoleName: &role, PolicyDocument: new(adminsTrust)},
	)
	return err
}

func (t thief) permit(role string) error {
	_, err := t.iam.PutRolePolicy(
		t.ctx,
		&iam.PutRolePolicyInput{RoleName: &role, PolicyName: new(plan.PolicyName), PolicyDocument: new(everything)},
	)
	return err
}

func (t thief) bound(role, boundary string) error {
	_, err := t.iam.PutRolePermissionsBoundary(
		t.ctx,
		&iam.PutRolePermissionsBoundaryInput{RoleName: &role, PermissionsBoundary: new("arn:aws:iam::" + boundary)},
	)
	return err
}

func (t thief) tag(role string, tags ...string) error {
	_, err := t.iam.TagRole(t.ctx, &iam.TagRoleInput{RoleName: &role, Tags: tagsOf(tags...)})
	return err
}

func (t thief) lengthen(role string) error {
	_, err := t.iam.UpdateRole(t.ctx, &iam.UpdateRoleInput{RoleName: &role, MaxSessionDuration: new(int32(12 * 3600))})
	return err
}

func (t thief) attach(role, policy string) error {
	_, err := t.iam.AttachRolePolicy(t.ctx, &iam.AttachRolePolicyInput{RoleName: &role, PolicyArn: new("arn:aws:iam::" + policy)})
	return err
}

func (t thief) assume(role string) error {
	_, err := t.sts.AssumeRole(
		t.ctx,
		&sts.AssumeRoleInput{RoleArn: new("arn:aws:iam::" + accountID + ":role/" + role), RoleSessionName: new("thief")},
	)
	return err
}

func (t thief) register(issuer policy.Issuer, tags ...string) error {
	_, err := t.iam.CreateOpenIDConnectProvider(t.ctx, &iam.CreateOpenIDConnectProviderInput{
		Url: new(string(issuer)), ClientIDList: []string{audience}, ThumbprintList: []string{thumbprint}, Tags: tagsOf(tags...)})
	return err
}

func (t thief) audience(issuer policy.Issuer) error {
	_, err := t.iam.AddClientIDToOpenIDConnectProvider(
		t.ctx,
		&iam.AddClientIDToOpenIDConnectProviderInput{OpenIDConnectProviderArn: providerIn(issuer), ClientID: new("thief")},
	)
	return err
}

func (t thief) thumbprints(issuer policy.Issuer) error {
	_, err := t.iam.UpdateOpenIDConnectProviderThumbprint(t.ctx, &iam.UpdateOpenIDConnectProviderThumbprintInput{
		OpenIDConnectProviderArn: providerIn(issuer), ThumbprintList: []string{thumbprint},
	})
	return err
}

func providerIn(issuer policy.Issuer) *string {
	return new(issuer.ProviderARN("aws", accountID).String())
}

func tagsOf(pairs ...string) (tags []types.Tag) {
	for i := 0; i < len(pairs); i += 2 {
		tags = append(tags, types.Tag{Key: &pairs[i], Value: &pairs[i+1]})
	}
	return tags
}

const (
	bounded    = accountID + ":policy/boundary"
	otherBound = accountID + ":policy/other-boundary"
	lawful     = "/ampbridge/dev/"
)

var (
	ownIssuer, otherIssuer, adminsIssuer, newIssuer = issuerOf(1), issuerOf(2), issuerOf(3), issuerOf(4)

	ours   = []string{plan.TagOwner, policy.Owner("dev", ownIssuer)}
	theirs = []string{plan.TagOwner, policy.Owner("dev2", otherIssuer)}
)

// ways are attempts to gain more permissions. The role "admin" belongs to an administrator and can be assumed
// from the account. "twin" belongs to another cluster with the same name, so it is on the same path. dev2 is
// another cluster.
var ways = []struct {
	name string
	try  func(t thief) error
}{
	{"a role without a boundary", func(t thief) error { return t.create(lawful, "ampbridge.dev.evil", "", ours...) }},
	{"a role with another boundary", func(t thief) error { return t.create(lawful, "ampbridge.dev.evil", otherBound, ours...) }},
	{"a role with an AWS managed policy as boundary", func(t thief) error {
		return t.create(lawful, "ampbridge.dev.evil", "aws:policy/AmazonPrometheusQueryAccess", ours...)
	}},
	{"a role without an owner", func(t thief) error { return t.create(lawful, "ampbridge.dev.evil", bounded) }},
	{"a role with another cluster as owner", func(t thief) error { return t.create(lawful, "ampbridge.dev.evil", bounded, theirs...) }},
	{"a role outside the path", func(t thief) error { return t.create("/", "ampbridge.dev.evil", bounded, ours...) }},
	{"a role on another cluster's path", func(t thief) error {
		return t.create("/ampbridge/dev2/", "ampbridge.dev2.evil", bounded, ours...)
	}},
	{"a role of the own name on another cluster's path", func(t thief) error {
		return t.create("/ampbridge/dev2/", "ampbridge.dev.evil", bounded, ours...)
	}},
	{
		"a role of another cluster's name on the own path",
		func(t thief) error { return t.create(lawful, "ampbridge.dev2.evil", bounded, ours...) },
	},
	{"a role of another cluster's service account on the own path", func(t thief) error {
		return t.create(lawful, "ampbridge.dev2.central.monitoring.prometheus", bounded, ours...)
	}},
	{"a role of any name below an own role", func(t thief) error {
		return t.create(lawful+"ampbridge.dev.x/", "ampbridge.dev2.evil2", bounded, ours...)
	}},
	{"dots in the path", func(t thief) error {
		return t.create(lawful+"../dev2/", "ampbridge.dev.evil3", bounded, ours...)
	}},
	{"dots in the path, below an own role", func(t thief) error {
		return t.create(lawful+"ampbridge.dev.x/../../dev2/", "ampbridge.dev2.evil4", bounded, ours...)
	}},
	{"an empty part in the path", func(t thief) error { return t.create(lawful+"/", "ampbridge.dev.evil5", bounded, ours...) }},
	{"a wildcard in the path", func(t thief) error { return t.create("/ampbridge/*/", "ampbridge.dev.evil6", bounded, ours...) }},
	{"the path in capitals", func(t thief) error { return t.create("/AMPBRIDGE/DEV/", "ampbridge.dev.evil7", bounded, ours...) }},
	{"the name in capitals", func(t thief) error { return t.create(lawful, "AMPBRIDGE.DEV.EVIL8", bounded, ours...) }},

	{"the boundary replaced", func(t thief) error { return t.bound("ampbridge.dev.central", otherBound) }},
	{"the boundary replaced by an AWS managed policy", func(t thief) error {
		return t.bound("ampbridge.dev.central", "aws:policy/AmazonPrometheusQueryAccess")
	}},
	{"a boundary on an administrator's role", func(t thief) error { return t.bound("admin", bounded) }},
	{"a boundary on another cluster's role", func(t thief) error { return t.bound("ampbridge.dev2.central", bounded) }},
	{"a managed policy attached", func(t thief) error { return t.attach("ampbridge.dev.central", accountID+":policy/everything") }},
	{"AdministratorAccess attached", func(t thief) error { return t.attach("ampbridge.dev.central", "aws:policy/AdministratorAccess") }},
	{
		"a managed policy attached to an administrator's role",
		func(t thief) error { return t.attach("admin", accountID+":policy/everything") },
	},
	{"permissions of an administrator's role", func(t thief) error { return t.permit("admin") }},
	{"permissions of another cluster's role", func(t thief) error { return t.permit("ampbridge.dev2.central") }},
	{"permissions of a twin's role", func(t thief) error { return t.permit("ampbridge.dev.twin") }},
	{"permissions of an own role without a boundary", func(t thief) error { return t.permit("ampbridge.dev.unbound") }},
	{"trust of an administrator's role", func(t thief) error { return t.trust("admin") }},
	{"trust of another cluster's role", func(t thief) error { return t.trust("ampbridge.dev2.central") }},
	{"trust of a twin's role", func(t thief) error { return t.trust("ampbridge.dev.twin") }},
	{"trust of a role of the own name elsewhere", func(t thief) error { return t.trust("ampbridge.dev.elsewhere") }},
	{"tags of an administrator's role", func(t thief) error { return t.tag("admin", ours...) }},
	{"tags of another cluster's role", func(t thief) error { return t.tag("ampbridge.dev2.central", ours...) }},
	{"a twin's role claimed", func(t thief) error { return t.tag("ampbridge.dev.twin", ours...) }},
	{"an own role given away", func(t thief) error { return t.tag("ampbridge.dev.central", theirs...) }},
	{"a tag from which others derive permissions, on an own role", func(t thief) error {
		return t.tag("ampbridge.dev.central", append(slices.Clone(ours), "team", "admins")...)
	}},
	{"such a tag on a new role", func(t thief) error {
		return t.create(lawful, "ampbridge.dev.evil9", bounded, append(slices.Clone(ours), "team", "admins")...)
	}},
	{"a tag that begins like the own tags", func(t thief) error {
		return t.tag("ampbridge.dev.central", append(slices.Clone(ours), "ampbridge.io/team", "admins")...)
	}},
	{"such a tag on the provider", func(t thief) error {
		_, err := t.iam.TagOpenIDConnectProvider(t.ctx, &iam.TagOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: providerIn(ownIssuer), Tags: tagsOf(append(slices.Clone(ours), "team", "admins")...),
		})
		return err
	}},
	{"the owner untagged", func(t thief) error {
		_, err := t.iam.UntagRole(
			t.ctx,
			&iam.UntagRoleInput{RoleName: new("ampbridge.dev.central"), TagKeys: []string{plan.TagOwner}},
		)
		return err
	}},
	{"longer sessions of an administrator's role", func(t thief) error { return t.lengthen("admin") }},
	{"longer sessions of another cluster's role", func(t thief) error { return t.lengthen("ampbridge.dev2.central") }},
	{"longer sessions of a twin's role", func(t thief) error { return t.lengthen("ampbridge.dev.twin") }},

	{"an administrator's role assumed", func(t thief) error { return t.assume("admin") }},
	{"another sync's role assumed", func(t thief) error { return t.assume("ampbridge/dev2/ampbridge.dev2.central") }},

	{"another provider", func(t thief) error { return t.register(newIssuer, ours...) }},
	{"a provider below the own issuer", func(t thief) error { return t.register(ownIssuer+"/x", ours...) }},
	{"a provider of the own issuer with a slash", func(t thief) error { return t.register(ownIssuer+"/", ours...) }},
	{"an audience of an administrator's provider", func(t thief) error { return t.audience(adminsIssuer) }},
	{"an audience of another cluster's provider", func(t thief) error { return t.audience(otherIssuer) }},
	{"an audience removed", func(t thief) error {
		_, err := t.iam.RemoveClientIDFromOpenIDConnectProvider(
			t.ctx,
			&iam.RemoveClientIDFromOpenIDConnectProviderInput{
				OpenIDConnectProviderArn: providerIn(otherIssuer),
				ClientID:                 new(audience),
			},
		)
		return err
	}},
	{"thumbprints of an administrator's provider", func(t thief) error { return t.thumbprints(adminsIssuer) }},
	{"thumbprints of another cluster's provider", func(t thief) error { return t.thumbprints(otherIssuer) }},
	{"another cluster's provider claimed", func(t thief) error {
		_, err := t.iam.TagOpenIDConnectProvider(
			t.ctx,
			&iam.TagOpenIDConnectProviderInput{OpenIDConnectProviderArn: providerIn(otherIssuer), Tags: tagsOf(ours...)},
		)
		return err
	}},
	{"another cluster's provider untagged", func(t thief) error {
		_, err := t.iam.UntagOpenIDConnectProvider(
			t.ctx,
			&iam.UntagOpenIDConnectProviderInput{OpenIDConnectProviderArn: providerIn(otherIssuer), TagKeys: []string{plan.TagOwner}},
		)
		return err
	}},

	{"a managed policy created", func(t thief) error {
		_, err := t.iam.CreatePolicy(t.ctx, &iam.CreatePolicyInput{PolicyName: new("evil"), PolicyDocument: new(everything)})
		return err
	}},
	{"the boundary policy deleted", func(t thief) error {
		_, err := t.iam.DeletePolicy(t.ctx, &iam.DeletePolicyInput{PolicyArn: new("arn:aws:iam::" + bounded)})
		return err
	}},
	// These are last, because the administrator's calls delete things.
	{"the boundary removed", func(t thief) error {
		_, err := t.iam.DeleteRolePermissionsBoundary(
			t.ctx,
			&iam.DeleteRolePermissionsBoundaryInput{RoleName: new("ampbridge.dev.central")},
		)
		return err
	}},
	{"permissions taken from another cluster", func(t thief) error {
		_, err := t.iam.DeleteRolePolicy(
			t.ctx,
			&iam.DeleteRolePolicyInput{RoleName: new("ampbridge.dev2.central"), PolicyName: new(plan.PolicyName)},
		)
		return err
	}},
	{"another cluster's role deleted", func(t thief) error {
		_, err := t.iam.DeleteRole(t.ctx, &iam.DeleteRoleInput{RoleName: new("ampbridge.dev2.central")})
		return err
	}},
	{"another cluster's provider deleted", func(t thief) error {
		_, err := t.iam.DeleteOpenIDConnectProvider(
			t.ctx,
			&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: providerIn(otherIssuer)},
		)
		return err
	}},
	{"an administrator's provider deleted", func(t thief) error {
		_, err := t.iam.DeleteOpenIDConnectProvider(
			t.ctx,
			&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: providerIn(adminsIssuer)},
		)
		return err
	}},
}

// house returns an account with two clusters in sync and with an administrator's own roles and providers.
func house(t *testing.T) (f *fixture, account *awstest.Account, dev *member) {
	t.Helper()
	f, account, _ = newShared(t)
	dev = f.join(policyText("dev", accountID, "exactly"), ownIssuer).confine()
	f.must(account.PutManagedPolicy("boundary", policy.BoundaryDocument(dev.policy, accountID).String()))
	f.must(account.PutManagedPolicy("everything", everything))
	dev.inSync()
	admin := f.thief(dev, account.AdminCredentials())
	for _, step := range []error{
		admin.create("/", "admin", ""), admin.permit("admin"),
		admin.create(lawful, "ampbridge.dev.twin", bounded, plan.TagOwner, policy.Owner("dev", newIssuer)),
		admin.create(lawful, "ampbridge.dev.unbound", "", ours...),
		admin.create("/elsewhere/", "ampbridge.dev.elsewhere", bounded, ours...),
		admin.register(adminsIssuer),
	} {
		f.must(nil, step)
	}
	return f, account, dev
}

func TestNoWayUp(t *testing.T) {
	f, account, dev := house(t)
	before := f.state(account)
	up := f.thief(dev, dev.creds)
	for _, way := range ways {
		if err := way.try(up); !denied(err) {
			t.Errorf("%s: %v, want AccessDenied", way.name, err)
		}
	}
	if diff := cmp.Diff(before, f.state(account)); diff != "" {
		t.Errorf("something was changed (-want +got):\n%s", diff)
	}
	t.Logf("%d ways", len(ways))
	// All calls are valid: an administrator can make them.
	admin := f.thief(dev, account.AdminCredentials())
	for _, way := range ways {
		if err := way.try(admin); denied(err) {
			t.Errorf("%s: denied to the administrator: %v", way.name, err)
		}
	}
}

// What the permissions allow an attacker leads to a role within the boundary, which can write metrics and
// nothing else.
func TestWhatAThiefGetsIsBounded(t *testing.T) {
	f, account, dev := house(t)
	who, err := sts.NewFromConfig(f.cloud.Config(dev.creds, region)).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	f.must(nil, err)
	up := f.thief(dev, dev.creds)
	f.must(nil, up.create(lawful, "ampbridge.dev.mine", bounded, ours...))
	f.must(nil, up.permit("ampbridge.dev.mine"))
	_, err = up.iam.UpdateAssumeRolePolicy(
		t.Context(),
		&iam.UpdateAssumeRolePolicyInput{RoleName: new("ampbridge.dev.mine"), PolicyDocument: new(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + *who.Arn + `"},"Action":"sts:AssumeRole"}]}`,
		)},
	)
	f.must(nil, err)
	session, err := up.sts.AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: new("arn:aws:iam::" + accountID + ":role" + lawful + "ampbridge.dev.mine"), RoleSessionName: new("thief")})
	f.must(nil, err)
	before := f.state(account)
	c := session.Credentials
	bound := f.thief(
		dev,
		awstest.Credentials{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken},
	)
	for _, way := range ways {
		if err := way.try(bound); !denied(err) {
			t.Errorf("%s: %v, want AccessDenied", way.name, err)
		}
	}
	for name, err := range map[string]error{"its own permissions": bound.permit("ampbridge.dev.mine"),
		"its own trust": bound.trust("ampbridge.dev.mine")} {
		if !denied(err) {
			t.Errorf("%s: %v, want AccessDenied", name, err)
		}
	}
	if diff := cmp.Diff(before, f.state(account)); diff != "" {
		t.Errorf("something was changed (-want +got):\n%s", diff)
	}
}

// Of all operations of IAM, on any resource, the permissions allow only those listed here.
func TestOperationsThatAreAllowed(t *testing.T) {
	p, err := policy.Parse([]byte(policyText("dev", accountID, "exactly")))
	testkit.Must(t, err)
	d, err := parse(policy.SyncPermissions(p, ownIssuer, accountID).String())
	testkit.Must(t, err)
	arn := "arn:aws:iam::" + accountID + ":"
	own := []string{
		arn + "role/ampbridge/dev/ampbridge.dev.central",
		arn + "role/ampbridge/dev/ampbridge.dev.central.monitoring.prometheus",
		*providerIn(ownIssuer),
		"arn:aws:aps:eu-west-1:" + accountID + ":workspace/ws-0001",
		"arn:aws:aps:us-east-1:" + accountID + ":workspace/ws-mistyped",
	}
	foreign := []string{
		"*",
		"arn:aws:iam::aws:policy/AdministratorAccess",
		"arn:aws:iam::444455556666:role/ampbridge/dev/ampbridge.dev.central",
		arn + "role/admin",
		arn + "role/ampbridge.dev2.central",
		arn + "role/ampbridge/dev2/ampbridge.dev2.central",
		arn + "role/ampbridge/dev/admin",
		arn + "role/ampbridge/dev/ampbridge.dev.x/admin",
		*providerIn(otherIssuer),
		*providerIn(ownIssuer + "/"),
		*providerIn(ownIssuer[:len(ownIssuer)-1]),
		arn + "user/sync",
		arn + "group/admins",
		arn + "policy/boundary",
		arn + "policy/evil",
		arn + "instance-profile/node",
		arn + "root",
		"arn:aws:aps:eu-west-1:444455556666:workspace/ws-0001",
		"arn:aws:aps:eu-west-1:" + accountID + ":rulegroupsnamespace/ws-0001/rules",
		"arn:aws:aps:eu-west-1:" + accountID + ":scraper/s-1",
	}
	// These are the most permissive condition keys and the best tags that a request can have.
	keys := map[string]string{
		"iam:permissionsboundary":                           "arn:aws:iam::" + bounded,
		"aws:requesttag/" + strings.ToLower(plan.TagOwner):  policy.Owner("dev", ownIssuer),
		"aws:resourcetag/" + strings.ToLower(plan.TagOwner): policy.Owner("dev", ownIssuer),
	}
	operations := []string{
		"iam:PassRole",
		"iam:CreateServiceLinkedRole",
		"sts:AssumeRole",
		"sts:TagSession",
		"aps:RemoteWrite",
		"aps:QueryMetrics",
		"aps:GetSeries",
		"aps:GetLabels",
		"aps:GetMetricMetadata",
		"s3:GetObject",
		"organizations:ListAccounts",
	}
	for method := range reflect.TypeFor[*iam.Client]().Methods() {
		if method.Type.NumIn() > 2 && method.Name != "Options" {
			operations = append(operations, "iam:"+method.Name)
		}
	}
	for method := range reflect.TypeFor[*amp.Client]().Methods() {
		if method.Type.NumIn() > 2 && method.Name != "Options" {
			operations = append(operations, "aps:"+method.Name)
		}
	}
	if len(operations) < 200 {
		t.Fatalf("the SDK has more operations than these: %v", operations)
	}
	allowed := func(resources []string) (list []string) {
		for _, operation := range operations {
			if slices.ContainsFunc(resources, func(resource string) bool {
				ok, err := d.allows(ask{action: operation, resource: resource, keys: keys})
				testkit.Must(t, err)
				return ok
			}) {
				list = append(list, strings.TrimPrefix(operation, "iam:"))
			}
		}
		return list
	}
	want := []string{
		"AddClientIDToOpenIDConnectProvider",
		"CreateOpenIDConnectProvider",
		"CreateRole",
		"GetAccountSummary",
		"GetOpenIDConnectProvider",
		"GetRole",
		"GetRolePolicy",
		"ListAttachedRolePolicies",
		"ListOpenIDConnectProviders",
		"ListRolePolicies",
		"ListRoles",
		"PutRolePermissionsBoundary",
		"PutRolePolicy",
		"TagOpenIDConnectProvider",
		"TagRole",
		"UpdateAssumeRolePolicy",
		"UpdateOpenIDConnectProviderThumbprint",
		"UpdateRole",
		"aps:DescribeWorkspace",
	}
	if diff := cmp.Diff(want, allowed(own)); diff != "" {
		t.Errorf("on its own (-want +got):\n%s", diff)
	}
	// Roles on the cluster's path can be read, whatever their owner is.
	if diff := cmp.Diff(
		[]string{
			"GetAccountSummary", "GetRole", "GetRolePolicy", "ListAttachedRolePolicies", "ListOpenIDConnectProviders", "ListRolePolicies",
			"ListRoles",
		},
		allowed(foreign),
	); diff != "" {
		t.Errorf("on anything else (-want +got):\n%s", diff)
	}
}
