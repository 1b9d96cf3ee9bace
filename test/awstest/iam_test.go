package awstest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var background = context.Background()

// iamFor is a client of a user who has exactly the policy.
func (f *fixture) iamFor(name, policy string) *iam.Client {
	f.t.Helper()
	creds, err := f.account.PutUser(name, policy)
	if err != nil {
		f.t.Fatal(err)
	}
	return iam.NewFromConfig(f.cloud.Config(creds, region), noRetries[iam.Options])
}

func TestIAMErrors(t *testing.T) {
	f := newFixture(t)
	f.account.SetQuotas(func(q *awstest.Quotas) {
		q.TrustPolicy, q.InlinePolicies, q.Roles, q.Providers, q.ClientIDs, q.Tags = 600, 300, 2, 2, 2, 1
	})
	f.createRole("Second", trust(f.provider, eksIssuer, subject))
	register(t, f.cloud, awstest.NewSigner(aksIssuer, jose.ES256), awstest.PublicCA) // IAM fetches its thumbprint
	f.createProvider(aksIssuer, stsTokens)
	aksProvider := f.account.ProviderARN(aksIssuer)
	name, second, missing := new(writerRole), new("Second"), new("missing")
	good := new(trust(f.provider, eksIssuer, subject))
	long := new(trust(f.provider, eksIssuer, subject, strings.Repeat("x", 500)))
	policy := new(allowWrite(f.workspace.ARN))
	tags := func(keys ...string) (list []types.Tag) {
		for _, key := range keys {
			list = append(list, types.Tag{Key: new(key), Value: new("v")})
		}
		return list
	}

	tests := []struct {
		name          string
		call          func() error
		code, message string
	}{
		{"role exists", call(f.iam.CreateRole, &iam.CreateRoleInput{RoleName: name, AssumeRolePolicyDocument: good}),
			"EntityAlreadyExists", "Role with name ampbridge.dev.central already exists."},
		{"role exists under another path and case",
			call(f.iam.CreateRole, &iam.CreateRoleInput{RoleName: new("SECOND"), Path: new("/b/"), AssumeRolePolicyDocument: good}),
			"EntityAlreadyExists", "Role with name SECOND already exists."},
		{"too many roles", call(f.iam.CreateRole, &iam.CreateRoleInput{RoleName: missing, AssumeRolePolicyDocument: good}),
			"LimitExceeded", "Cannot exceed quota for RolesPerAccount: 2"},
		{"trust policy too long at creation", call(f.iam.CreateRole, &iam.CreateRoleInput{RoleName: missing, AssumeRolePolicyDocument: long}),
			"LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 600"},
		{"trust policy too long", call(f.iam.UpdateAssumeRolePolicy, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: long}),
			"LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 600"},
		{"trust policy malformed",
			call(f.iam.UpdateAssumeRolePolicy, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: new("{}")}),
			"MalformedPolicyDocument", "Syntax errors in policy."},
		{"principal that does not exist",
			call(f.iam.UpdateAssumeRolePolicy, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: new(
				`{"Statement":{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/nobody"},"Action":"sts:AssumeRole"}}`)}),
			"MalformedPolicyDocument", `Invalid principal in policy: "AWS":"arn:aws:iam::111122223333:role/nobody"`},
		{"role name", call(f.iam.CreateRole, &iam.CreateRoleInput{RoleName: new(strings.Repeat("x", 65)), AssumeRolePolicyDocument: good}),
			"ValidationError", "1 validation error detected"},
		{"role path", call(f.iam.CreateRole, &iam.CreateRoleInput{RoleName: missing, Path: new("a"), AssumeRolePolicyDocument: good}),
			"ValidationError", "The specified value for path is invalid."},
		{"session duration", call(f.iam.UpdateRole, &iam.UpdateRoleInput{RoleName: name, MaxSessionDuration: new(int32(3599))}),
			"ValidationError", "1 validation error detected: Value '3599' at 'maxSessionDuration' failed to satisfy constraint: Member " +
				"must have value greater than or equal to 3600"},
		{"boundary that does not exist", call(f.iam.PutRolePermissionsBoundary, &iam.PutRolePermissionsBoundaryInput{
			RoleName:            name,
			PermissionsBoundary: new("arn:aws:iam::111122223333:policy/nothing"),
		}), "NoSuchEntity", "Scope ARN: arn:aws:iam::111122223333:policy/nothing does not exist or is not attachable."},
		{"no such role", call(f.iam.GetRole, &iam.GetRoleInput{RoleName: missing}),
			"NoSuchEntity", "The role with name missing cannot be found."},
		{"too many role tags", call(f.iam.TagRole, &iam.TagRoleInput{RoleName: name, Tags: tags("a", "b")}),
			"LimitExceeded", "The number of tags has reached the maximum limit."},
		{"tag twice", call(f.iam.TagRole, &iam.TagRoleInput{RoleName: name, Tags: tags("a", "A")}), "InvalidInput", "Duplicate tag keys found."},
		{"tag key", call(f.iam.TagRole, &iam.TagRoleInput{RoleName: name, Tags: tags("a#")}), "ValidationError", "1 validation error detected"},
		{"no such inline policy", call(f.iam.GetRolePolicy, &iam.GetRolePolicyInput{RoleName: name, PolicyName: missing}),
			"NoSuchEntity", "The role policy with name missing cannot be found."},
		{"inline policies too long together",
			call(f.iam.PutRolePolicy, &iam.PutRolePolicyInput{RoleName: name, PolicyName: missing, PolicyDocument: policy}),
			"LimitExceeded", "Maximum policy size of 300 bytes exceeded for role ampbridge.dev.central"},
		{"role with an inline policy", call(f.iam.DeleteRole, &iam.DeleteRoleInput{RoleName: name}),
			"DeleteConflict", "Cannot delete entity, must delete policies first."},
		{"role with an attached policy", func() error {
			_, err := f.iam.AttachRolePolicy(
				background,
				&iam.AttachRolePolicyInput{
					RoleName:  second,
					PolicyArn: new("arn:aws:iam::aws:policy/AmazonPrometheusRemoteWriteAccess"),
				},
			)
			if err != nil {
				return err
			}
			_, err = f.iam.DeleteRole(background, &iam.DeleteRoleInput{RoleName: second})
			return err
		}, "DeleteConflict", "Cannot delete entity, must detach all policies first."},
		{"attach what does not exist",
			call(f.iam.AttachRolePolicy, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: new("arn:aws:iam::aws:policy/Nothing")}),
			"NoSuchEntity", "Policy arn:aws:iam::aws:policy/Nothing does not exist or is not attachable."},
		{"provider exists", call(f.iam.CreateOpenIDConnectProvider, &iam.CreateOpenIDConnectProviderInput{Url: new(eksIssuer)}),
			"EntityAlreadyExists", "Provider with url " + eksIssuer + " already exists."},
		{"too many providers", call(f.iam.CreateOpenIDConnectProvider, &iam.CreateOpenIDConnectProviderInput{
			Url:            new("https://example.com"),
			ThumbprintList: []string{strings.Repeat("a", 40)},
		}), "LimitExceeded", "Cannot exceed quota for OpenIdConnectProvidersPerAccount: 2"},
		{"provider that IAM cannot reach",
			call(f.iam.CreateOpenIDConnectProvider, &iam.CreateOpenIDConnectProviderInput{Url: new("https://10-0-0-1.internal.example")}),
			"OpenIdIdpCommunicationError", "Unable to communicate with the identity provider"},
		{"provider with a port",
			call(f.iam.CreateOpenIDConnectProvider, &iam.CreateOpenIDConnectProviderInput{Url: new("https://example.com:6443")}),
			"ValidationError", "Invalid Open ID Connect Provider URL"},
		{"provider over http",
			call(f.iam.CreateOpenIDConnectProvider, &iam.CreateOpenIDConnectProviderInput{Url: new("http://example.com")}),
			"ValidationError", "Invalid Open ID Connect Provider URL"},
		{"no such provider",
			call(f.iam.GetOpenIDConnectProvider, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: new(aksProvider + "x")}),
			"NoSuchEntity", "OpenIDConnect Provider not found for arn " + aksProvider + "x"},
		{"too many client IDs", func() error {
			for _, id := range []string{"one", "two"} {
				_, err := f.iam.AddClientIDToOpenIDConnectProvider(
					background,
					&iam.AddClientIDToOpenIDConnectProviderInput{
						OpenIDConnectProviderArn: new(aksProvider),
						ClientID:                 new(id),
					},
				)
				if err != nil {
					return err
				}
			}
			return nil
		}, "LimitExceeded", "Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: 2"},
		{"no thumbprint left", call(f.iam.UpdateOpenIDConnectProviderThumbprint, &iam.UpdateOpenIDConnectProviderThumbprintInput{
			OpenIDConnectProviderArn: new(aksProvider),
			ThumbprintList:           []string{},
		}), "InvalidInput", "Thumbprint list must contain at least one entry."},
		{"thumbprint", call(f.iam.UpdateOpenIDConnectProviderThumbprint, &iam.UpdateOpenIDConnectProviderThumbprintInput{
			OpenIDConnectProviderArn: new(aksProvider),
			ThumbprintList:           []string{"abc"},
		}), "ValidationError", "1 validation error detected"},
		{"policy exists", func() error {
			for range 2 {
				if _, err := f.iam.CreatePolicy(
					background,
					&iam.CreatePolicyInput{PolicyName: new("boundary"), PolicyDocument: policy},
				); err != nil {
					return err
				}
			}
			return nil
		}, "EntityAlreadyExists", "A policy called boundary already exists. Duplicate names are not allowed."},
		{"no such policy", call(f.iam.GetPolicy, &iam.GetPolicyInput{PolicyArn: new("arn:aws:iam::111122223333:policy/x")}),
			"NoSuchEntity", "Policy arn:aws:iam::111122223333:policy/x was not found."},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { wantError(t, test.call(), test.code, test.message) })
	}
}

func TestRoleComesBackEncodedAndCanonical(t *testing.T) {
	f := newFixture(t)
	f.updateTrust(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["444455556666"]},"Action":["sts:AssumeRole"]}]}`,
	)
	out, err := f.iam.GetRole(background, &iam.GetRoleInput{RoleName: new(writerRole)})
	testkit.Must(t, err)
	if strings.ContainsAny(*out.Role.AssumeRolePolicyDocument, `{":+ `) {
		t.Errorf("not percent-encoded: %s", *out.Role.AssumeRolePolicyDocument)
	}
	got, err := url.PathUnescape(*out.Role.AssumeRolePolicyDocument)
	testkit.Must(t, err)
	const want = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::444455556666:root"},` +
		`"Action":"sts:AssumeRole"}]}`
	if got != want {
		t.Errorf("trust = %s\nwant %s", got, want)
	}
	if *out.Role.Path != writerPath || *out.Role.MaxSessionDuration != 3600 || !strings.HasPrefix(*out.Role.RoleId, "AROA") ||
		out.Role.CreateDate.IsZero() {
		t.Errorf("role = %+v", out.Role)
	}
}

func TestDeletedPrincipalShowsItsID(t *testing.T) {
	f := newFixture(t)
	f.createRole("caller", trust(f.provider, eksIssuer, subject))
	caller, err := f.iam.GetRole(background, &iam.GetRoleInput{RoleName: new("caller")})
	testkit.Must(t, err)
	f.updateTrust(
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + *caller.Role.Arn + `"},"Action":"sts:AssumeRole"}}`,
	)
	shows := func(want string) {
		t.Helper()
		out, err := f.iam.GetRole(background, &iam.GetRoleInput{RoleName: new(writerRole)})
		testkit.Must(t, err)
		if got, _ := url.PathUnescape(*out.Role.AssumeRolePolicyDocument); !strings.Contains(got, `{"AWS":"`+want+`"}`) {
			t.Errorf("trust = %s, want principal %s", got, want)
		}
	}
	shows(*caller.Role.Arn)
	testkit.Must(t, call(f.iam.DeleteRole, &iam.DeleteRoleInput{RoleName: new("caller")})())
	shows(*caller.Role.RoleId)
	f.createRole("caller", trust(f.provider, eksIssuer, subject))
	shows(*caller.Role.RoleId)
}

func TestRoleLifeCycle(t *testing.T) {
	f := newFixture(t)
	name := new(writerRole)
	must := func(_ any, err error) {
		t.Helper()
		testkit.Must(t, err)
	}
	boundary, err := f.account.PutManagedPolicy("boundary", allowWrite("*"))
	must(nil, err)
	must(
		f.iam.UpdateRole(
			background,
			&iam.UpdateRoleInput{RoleName: name, MaxSessionDuration: new(int32(43200)), Description: new("writes")},
		),
	)
	must(
		f.iam.TagRole(
			background,
			&iam.TagRoleInput{
				RoleName: name,
				Tags:     []types.Tag{{Key: new("owner"), Value: new("a")}, {Key: new("x"), Value: new("")}},
			},
		),
	)
	must(
		f.iam.TagRole(background, &iam.TagRoleInput{RoleName: name, Tags: []types.Tag{{Key: new("owner"), Value: new("b")}}}),
	)
	must(f.iam.UntagRole(background, &iam.UntagRoleInput{RoleName: name, TagKeys: []string{"x"}}))
	must(
		f.iam.PutRolePermissionsBoundary(
			background,
			&iam.PutRolePermissionsBoundaryInput{RoleName: name, PermissionsBoundary: new(boundary)},
		),
	)
	out, err := f.iam.GetRole(background, &iam.GetRoleInput{RoleName: name})
	must(nil, err)
	r := out.Role
	if *r.MaxSessionDuration != 43200 || *r.Description != "writes" || len(r.Tags) != 1 || *r.Tags[0].Value != "b" ||
		*r.PermissionsBoundary.PermissionsBoundaryArn != boundary {
		t.Errorf("role = %+v", r)
	}
	list, err := f.iam.ListRoles(background, &iam.ListRolesInput{PathPrefix: new("/ampbridge/")})
	must(nil, err)
	if len(list.Roles) != 1 || list.Roles[0].Tags != nil || list.Roles[0].PermissionsBoundary != nil {
		t.Errorf("ListRoles shows %+v, want one role without tags and boundary", list.Roles)
	}
	must(f.iam.UpdateRole(background, &iam.UpdateRoleInput{RoleName: name}))
	must(f.iam.DeleteRolePermissionsBoundary(background, &iam.DeleteRolePermissionsBoundaryInput{RoleName: name}))
	out, err = f.iam.GetRole(background, &iam.GetRoleInput{RoleName: name})
	must(nil, err)
	if *out.Role.MaxSessionDuration != 3600 || *out.Role.Description != "writes" || out.Role.PermissionsBoundary != nil {
		t.Errorf("role = %+v, want the default duration back and no boundary", out.Role)
	}
	policies, err := f.iam.ListRolePolicies(background, &iam.ListRolePoliciesInput{RoleName: name})
	must(nil, err)
	if !slices.Equal(policies.PolicyNames, []string{"remote-write"}) {
		t.Errorf("inline policies = %v", policies.PolicyNames)
	}
	must(f.iam.DeleteRolePolicy(background, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: new("remote-write")}))
	must(f.iam.DeleteRole(background, &iam.DeleteRoleInput{RoleName: name}))
}

func TestListRolesPages(t *testing.T) {
	f := newFixture(t)
	for i := range 5 {
		f.createRole(fmt.Sprintf("r%d", i), trust(f.provider, eksIssuer, subject))
	}
	pages, names := 0, []string{}
	pager := iam.NewListRolesPaginator(f.iam, &iam.ListRolesInput{MaxItems: new(int32(2))})
	for pager.HasMorePages() {
		page, err := pager.NextPage(background)
		testkit.Must(t, err)
		pages++
		for _, r := range page.Roles {
			names = append(names, *r.RoleName)
		}
	}
	if want := []string{writerRole, "r0", "r1", "r2", "r3", "r4"}; pages != 3 || !slices.Equal(names, want) {
		t.Errorf("%d pages: %v, want 3: %v", pages, names, want)
	}
}

func TestProviderLifeCycle(t *testing.T) {
	f := newFixture(t)
	arn := new(f.provider)
	testkit.Must(t, call(f.iam.AddClientIDToOpenIDConnectProvider,
		&iam.AddClientIDToOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn, ClientID: new("second")})())
	if _, err := f.iam.TagOpenIDConnectProvider(
		background,
		&iam.TagOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: arn,
			Tags:                     []types.Tag{{Key: new("k"), Value: new("v")}},
		},
	); err != nil {
		t.Fatal(err)
	}
	out, err := f.iam.GetOpenIDConnectProvider(background, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})
	testkit.Must(t, err)
	if *out.Url != strings.TrimPrefix(eksIssuer, "https://") || !slices.Equal(out.ClientIDList, []string{stsTokens, "second"}) ||
		!slices.Equal(out.ThumbprintList, []string{f.issuer.Thumbprint()}) || len(out.Tags) != 1 {
		t.Errorf("provider = %+v", out)
	}
	list, err := f.iam.ListOpenIDConnectProviders(background, nil)
	testkit.Must(t, err)
	if len(list.OpenIDConnectProviderList) != 1 || *list.OpenIDConnectProviderList[0].Arn != f.provider {
		t.Errorf("providers = %+v", list.OpenIDConnectProviderList)
	}
	for range 2 { // a second deletion succeeds too
		testkit.Must(t, call(f.iam.DeleteOpenIDConnectProvider, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})())
	}
	_, err = f.assume(f.signer.Token(subject, stsTokens))
	wantError(t, err, "InvalidIdentityToken", "No OpenIDConnect provider found in your account for "+eksIssuer)
}

// TestBoundaryIsRequired runs IAM calls under the policy that a careful administrator gives to a program that
// makes roles.
func TestBoundaryIsRequired(t *testing.T) {
	f := newFixture(t)
	boundary, err := f.account.PutManagedPolicy("boundary", allowWrite("*"))
	testkit.Must(t, err)
	client := f.iamFor("sync", `{"Version":"2012-10-17","Statement":[
		{"Effect":"Allow","Action":["iam:CreateRole","iam:PutRolePolicy"],"Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/*",
		 "Condition":{"StringEquals":{"iam:PermissionsBoundary":"`+boundary+`"}}},
		{"Effect":"Allow","Action":["iam:GetRole","iam:TagRole"],"Resource":"arn:aws:iam::111122223333:role/ampbridge/dev/*"}]}`)
	create := func(name, path, boundary string, tagged bool) error {
		in := &iam.CreateRoleInput{
			RoleName: new(name), Path: new(path), AssumeRolePolicyDocument: new(trust(f.provider, eksIssuer, subject)),
		}
		if boundary != "" {
			in.PermissionsBoundary = new(boundary)
		}
		if tagged {
			in.Tags = []types.Tag{{Key: new("k"), Value: new("v")}}
		}
		_, err := client.CreateRole(background, in)
		return err
	}
	put := func(name string) error {
		_, err := client.PutRolePolicy(background, &iam.PutRolePolicyInput{
			RoleName: new(name), PolicyName: new("p"), PolicyDocument: new(allowWrite("*")),
		})
		return err
	}
	denied := "User: arn:aws:iam::111122223333:user/sync is not authorized to perform: "
	wantError(
		t,
		create("a", writerPath, "", false),
		"AccessDenied",
		denied+"iam:CreateRole on resource: arn:aws:iam::111122223333:role/ampbridge/dev/a because no identity-based policy allows "+
			"the iam:CreateRole action",
	)
	wantError(t, create("a", "/other/", boundary, false), "AccessDenied", denied+"iam:CreateRole")
	wantError(t, put(writerRole), "AccessDenied", denied+"iam:PutRolePolicy") // has no boundary
	if err := create("a", writerPath, boundary, true); err != nil {
		t.Error(err)
	}
	if err := put("a"); err != nil {
		t.Error(err)
	}
	if _, err := client.GetRole(background, &iam.GetRoleInput{RoleName: new("a")}); err != nil {
		t.Error(err)
	}
	untagged := f.iamFor("untagged", `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:CreateRole","Resource":"*"}}`)
	_, err = untagged.CreateRole(background, &iam.CreateRoleInput{
		RoleName: new("b"), AssumeRolePolicyDocument: new(trust(f.provider, eksIssuer, subject)),
		Tags: []types.Tag{{Key: new("k"), Value: new("v")}},
	})
	wantError(t, err, "AccessDenied", "User: arn:aws:iam::111122223333:user/untagged is not authorized to perform: iam:TagRole")
	_, err = client.GetRole(background, &iam.GetRoleInput{RoleName: new("missing")})
	wantError(t, err, "AccessDenied", denied+"iam:GetRole on resource: arn:aws:iam::111122223333:role/missing")
	_, err = client.DeleteRole(background, &iam.DeleteRoleInput{RoleName: new("a")})
	wantError(t, err, "AccessDenied", denied+"iam:DeleteRole")
}

func TestCallsAreRecorded(t *testing.T) {
	f := newFixture(t)
	before := len(f.cloud.Calls())
	_, _ = f.iam.GetRole(background, &iam.GetRoleInput{RoleName: new("missing")})
	calls := f.cloud.Calls()[before:]
	if len(calls) != 1 {
		t.Fatalf("calls = %+v, want one", calls)
	}
	got := calls[0]
	if got.Service != "iam" || got.Action != "GetRole" || got.Account != accountID || got.Code != "NoSuchEntity" ||
		got.Status != http.StatusNotFound || got.Principal != "arn:aws:iam::111122223333:user/administrator" {
		t.Errorf("call = %+v", got)
	}
}

func TestStaleReads(t *testing.T) {
	f := newFixture(t)
	f.cloud.SetReadDelay(time.Hour)
	_, err := f.iam.GetRole(background, &iam.GetRoleInput{RoleName: new(writerRole)})
	wantError(t, err, "NoSuchEntity", "The role with name")
	_, err = f.iam.CreateRole(
		background,
		&iam.CreateRoleInput{RoleName: new(writerRole), AssumeRolePolicyDocument: new(trust(f.provider, eksIssuer, subject))},
	)
	wantError(t, err, "EntityAlreadyExists", "Role with name")
}

// call returns a call of IAM that only its error matters of.
func call[In, Out any](api func(context.Context, *In, ...func(*iam.Options)) (*Out, error), in *In) func() error {
	return func() error {
		_, err := api(background, in)
		return err
	}
}

// A role that was made a moment ago is no principal of another account's trust document yet.
func TestNewPrincipalIsLate(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	home, away := cloud.Account("111122223333"), cloud.Account("444455556666")
	cloud.SetPropagationDelay(time.Minute)
	const trust = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"444455556666"},"Action":"sts:AssumeRole"}}`
	first, err := iam.NewFromConfig(cloud.Config(home.AdminCredentials(), "eu-west-1")).CreateRole(t.Context(), &iam.CreateRoleInput{
		RoleName: new("first"), AssumeRolePolicyDocument: new(trust),
	})
	testkit.Must(t, err)
	document := strings.Replace(trust, "444455556666", *first.Role.Arn, 1)
	create := func() error {
		_, err := iam.NewFromConfig(cloud.Config(away.AdminCredentials(), "eu-west-1")).CreateRole(t.Context(), &iam.CreateRoleInput{
			RoleName: new("second"), AssumeRolePolicyDocument: new(document),
		})
		return err
	}
	if err := create(); err == nil || !strings.Contains(err.Error(), "Invalid principal in policy") {
		t.Errorf("at once: %v", err)
	}
	cloud.Advance(2 * time.Minute)
	if err := create(); err != nil {
		t.Errorf("after it has come about: %v", err)
	}
}
