package bootstrap_test

import (
	"encoding/json"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	// The slash at the end belongs to the issuer.
	guideIssuer   = "https://eastus.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000001/00000000-0000-0000-0000-000000000002/"
	guideRole     = "AKS-Prometheus-AMP-Role"
	azureAudience = "api://AzureADTokenExchange"
)

// getRole returns what `aws iam get-role` prints.
func (f *fixture) getRole(name string) string {
	f.Helper()
	out, err := f.iam(f.account.AdminCredentials()).GetRole(f.Context(), &iam.GetRoleInput{RoleName: &name})
	testkit.Must(f, err)
	document, err := url.PathUnescape(*out.Role.AssumeRolePolicyDocument)
	testkit.Must(f, err)
	text, err := json.Marshal(map[string]any{"Role": map[string]any{
		"Path": *out.Role.Path, "RoleName": name, "Arn": *out.Role.Arn, "MaxSessionDuration": 3600,
		"AssumeRolePolicyDocument": json.RawMessage(document),
	}})
	testkit.Must(f, err)
	return string(text)
}

// The steps of the runbook for what the guide for AKS leaves behind: at every step the
// service account writes with the role that it uses then, nothing but the old role is
// deleted, and at the end the cluster owns provider and workspace.
func TestNoStepFromTheAKSGuideIsWithoutTrust(t *testing.T) {
	f := newFixtureOn(t, awstest.Start(t, awstest.Options{Keep: []string{"migration"}}), policyText)
	signer := awstest.NewSigner(guideIssuer, jose.RS256)
	if _, err := f.cloud.RegisterIssuer(guideIssuer, signer, awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	subject := policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus-sa"}
	admin := f.iam(f.account.AdminCredentials())
	workspace := f.account.CreateWorkspace(region, "theirs").ARN
	provider := policy.Issuer(guideIssuer).ProviderARN("aws", accountID).String()
	document, err := f.account.PutManagedPolicy("amp-write", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",`+
		`"Action":"aps:RemoteWrite","Resource":"`+workspace+`"}]}`)
	testkit.Must(t, err)
	try := func(_ any, err error) {
		t.Helper()
		testkit.Must(t, err)
	}
	try(admin.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
		Url: new(guideIssuer), ClientIDList: []string{"sts.amazonaws.com", azureAudience},
	}))
	try(admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: new(guideRole), AssumeRolePolicyDocument: new(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Federated":"` + provider + `"},` +
			`"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{"` + strings.TrimPrefix(guideIssuer, "https://") +
			`:sub":"` + subject.String() + `"}}}]}`)}))
	try(admin.AttachRolePolicy(t.Context(), &iam.AttachRolePolicyInput{RoleName: new(guideRole), PolicyArn: &document}))

	client, written := sts.NewFromConfig(f.cloud.Config(awstest.Credentials{}, region)), 0
	const fresh = "arn:aws:iam::111122223333:role/ampbridge/dev-aks/ampbridge.dev-aks.central"
	check := func(step string, theirs, ours bool) {
		t.Helper()
		for _, c := range []struct {
			role, audience string
			want           bool
		}{
			{"arn:aws:iam::111122223333:role/" + guideRole, azureAudience, theirs},
			{fresh, "sts.amazonaws.com", ours},
		} {
			out, err := client.AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
				RoleArn: &c.role, RoleSessionName: new("migration"), WebIdentityToken: new(signer.Token(subject.String(), c.audience)),
			})
			if (err == nil) != c.want || err != nil && !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("%s: %s: %v, want %v", step, c.role, err, c.want)
			}
			if err == nil {
				f.writeSample(workspace, subject.String(), awstest.Credentials{
					AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey,
					SessionToken: *out.Credentials.SessionToken,
				})
				written++
			}
		}
	}
	check("before", true, false)

	dir := t.TempDir()
	from, file := filepath.Join(dir, "role.json"), filepath.Join(dir, "dev-aks.yaml")
	testkit.WriteFile(t, from, f.getRole(guideRole))
	status, runbook, errs := run(t, "bootstrap", "--from", from, "--cluster-name", "dev-aks", "--workspace", workspace)
	if status != cli.OK {
		t.Fatalf("status %d: %s", status, errs)
	}
	// What is trusted today goes after the last Prometheus has moved, and is the last to go.
	order := []string{"bootstrap policy --from", "--apply", "injection=annotated", "annotate serviceaccount -n monitoring prometheus-sa",
		"adoptProvider: true", "--adopt-workspace central", "RoleLastUsed", "detach-role-policy", "delete-role --role-name " + guideRole,
		"az ad app delete"}
	at := 0
	for _, part := range order {
		i := strings.Index(runbook[at:], part)
		if i < 0 {
			t.Fatalf("%q is missing or comes too early in\n%s", part, runbook)
		}
		at += i
	}
	for _, never := range []string{"delete-open-id-connect-provider", "delete-workspace", "terraform", "module"} {
		if strings.Contains(runbook, never) {
			t.Errorf("the runbook has %s", never)
		}
	}
	// 1. The policy.
	status, _, errs = run(t, "bootstrap", "policy", "--from", from, "--cluster-name", "dev-aks", "--workspace", workspace, "--dir", dir)
	if status != cli.OK {
		t.Fatalf("status %d: %s", status, errs)
	}
	f.write(testkit.ReadFile(t, file))
	check("1", true, false)
	// 2. Bootstrap: provider and workspace stay as they are.
	f.must("--apply", "--yes")
	check("2", true, false)
	if tags := f.workspaceTags()[workspace]; tags[policy.TagOwner] != "" {
		t.Errorf("the workspace is adopted without being asked: %v", tags)
	}
	// 3. Sync, with what bootstrap gave it.
	p := f.policy()
	keys, err := f.account.PutUser("sync", policy.SyncPermissions(p, guideIssuer, accountID).String())
	testkit.Must(t, err)
	f.credentials(keys)
	f.syncSubjects(p, []policy.Subject{subject})
	check("3 and 4", true, true)
	// 5. The provider and the workspace become the cluster's.
	f.write(strings.Replace(testkit.ReadFile(t, file), "trust:\n", "trust:\n  adoptProvider: true\n", 1))
	p = f.policy()
	f.syncSubjects(p, []policy.Subject{subject})
	f.credentials(f.account.AdminCredentials())
	f.must("--adopt-workspace", "central", "--apply", "--yes")
	owner := policy.Owner("dev-aks", guideIssuer)
	if tags := f.workspaceTags()[workspace]; tags[policy.TagOwner] != owner {
		t.Errorf("the workspace has the tags %v", tags)
	}
	if out := f.must("--adopt-workspace", "central", "--apply", "--yes"); !strings.Contains(out, "in sync: nothing to change") {
		t.Errorf("again: %s", out)
	}
	check("5", true, true)
	// 6. The old role goes.
	try(admin.DetachRolePolicy(t.Context(), &iam.DetachRolePolicyInput{RoleName: new(guideRole), PolicyArn: &document}))
	try(admin.DeletePolicy(t.Context(), &iam.DeletePolicyInput{PolicyArn: &document}))
	try(admin.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: new(guideRole)}))
	check("6", false, true)
	if again := f.syncSubjects(p, []policy.Subject{subject}); again != 0 {
		t.Errorf("%d changes at the end", again)
	}
	found, err := admin.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: &provider})
	if err != nil || len(found.ClientIDList) != 2 || value(found.Tags, policy.TagOwner) != owner {
		t.Errorf("the provider is %+v, %v", found, err)
	}
	id := workspace[strings.LastIndexByte(workspace, '/')+1:]
	if kept := f.cloud.Kept(id, "migration"); len(kept) != written || written < 8 {
		t.Errorf("%d samples of %d", len(kept), written)
	}
}

// A workspace is adopted by the flag alone, and never another cluster's.
func TestAdoptWorkspace(t *testing.T) {
	f := newFixture(t, policyText)
	workspace := f.account.CreateWorkspace(region, "theirs").ARN
	text := strings.Replace(policyText, "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new", workspace, 1)
	f.write(text)
	for args, want := range map[string]string{
		"--adopt-workspace centrall":                         "the policy has no such destination",
		"--adopt-workspace central -o aws-cli":               "--adopt-workspace and -o aws-cli exclude each other",
		"--adopt-workspace central -o terraform --file x.tf": "--adopt-workspace and -o terraform exclude each other",
	} {
		if status, _, errs := f.run("", strings.Fields(args)...); status == cli.OK || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d: %s", args, status, errs)
		}
	}
	f.must("--apply", "--yes")
	if tags := f.workspaceTags()[workspace]; len(tags) != 0 {
		t.Errorf("without the flag: %v", tags)
	}
	f.must("--adopt-workspace", "central", "--tag", "team=metrics", "--apply", "--yes")
	if tags := f.workspaceTags()[workspace]; tags[policy.TagOwner] != policy.Owner("dev", issuer) || tags["team"] != "metrics" {
		t.Errorf("with the flag: %v", tags)
	}
	// Another cluster of the same account.
	f.write(strings.Replace(strings.NewReplacer("name: dev", "name: other", issuer, guideIssuer).Replace(text),
		"boundary", "boundary.other", 1))
	if _, err := f.cloud.RegisterIssuer(guideIssuer, nil, awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	before := f.workspaceTags()[workspace][policy.TagOwner]
	status, out, errs := f.run("", "--adopt-workspace", "central", "--apply", "--yes")
	if status == cli.OK || !strings.Contains(out+errs, `belongs to cluster "dev"`) {
		t.Errorf("another cluster's: status %d: %s%s", status, out, errs)
	}
	if after := f.workspaceTags()[workspace][policy.TagOwner]; after != before {
		t.Errorf("the owner is %s", after)
	}
}

// Every file of a role that cannot be a policy is refused, with the fix.
func TestRoleFilesThatAreRefused(t *testing.T) {
	const workspace = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"
	host := strings.TrimPrefix(guideIssuer, "https://")
	role := func(condition string) string {
		return `{"Role":{"RoleName":"r","Arn":"arn:aws:iam::111122223333:role/r","AssumeRolePolicyDocument":{"Version":"2012-10-17",` +
			`"Statement":[{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::111122223333:oidc-provider/` + host + `"},` +
			`"Action":"sts:AssumeRoleWithWebIdentity","Condition":` + condition + `}]}}}`
	}
	good := role(`{"StringEquals":{"` + host + `:sub":["system:serviceaccount:a:b","system:serviceaccount:c:d"]}}`)
	// As IAM's API has the document.
	at := strings.Index(good, `{"Version"`)
	encoded := good[:at] + `"` + url.PathEscape(strings.TrimSuffix(good[at:], "}}")) + `"}}`
	for name, c := range map[string]struct{ text, args, want string }{
		"good":       {good, "--cluster-name dev", ""},
		"encoded":    {encoded, "--cluster-name dev", ""},
		"no cluster": {good, "", "name the cluster with --cluster-name"},
		"no label":   {good, "--cluster-name Dev_1", "write a DNS label, such as dev-1"},
		"a module":   {good, "--cluster-name dev --module module.amp", "--module is for the file of a module"},
		"without its slash": {role(`{"StringEquals":{"` + strings.TrimSuffix(host, "/") + `:sub":"system:serviceaccount:a:b"}}`),
			"--cluster-name dev", "byte for byte"},
		"a pattern": {role(`{"StringLike":{"` + host + `:sub":"system:serviceaccount:a:*"}}`),
			"--cluster-name dev", "StringEquals has no key"},
		"no service account": {role(`{"StringEquals":{"` + host + `:sub":"prometheus"}}`), "--cluster-name dev", "prometheus"},
		"no web identity":    {strings.Replace(good, "WithWebIdentity", "", 1), "--cluster-name dev", "no statement allows"},
		"no ARN":             {strings.Replace(good, `"Arn"`, `"arnn"`, 1), "--cluster-name dev", "must have RoleName and Arn"},
		"another account": {strings.Replace(good, "arn:aws:iam::111122223333:role/r", "arn:aws:iam::444455556666:role/r", 1),
			"--cluster-name dev", "444455556666"},
	} {
		file := filepath.Join(t.TempDir(), "role.json")
		testkit.WriteFile(t, file, c.text)
		status, out, errs := run(t, append([]string{"bootstrap", "--from", file, "--workspace", workspace}, strings.Fields(c.args)...)...)
		if (status == cli.OK) != (c.want == "") || !strings.Contains(errs, c.want) || (out != "") != (c.want == "") {
			t.Errorf("%s: status %d, %d bytes: %s", name, status, len(out), errs)
		}
		if status == cli.OK && strings.Count(out, "annotate serviceaccount") < 2 {
			t.Errorf("%s: not all service accounts in\n%s", name, out)
		}
	}
}
