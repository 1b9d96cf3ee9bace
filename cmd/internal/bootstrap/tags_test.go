package bootstrap_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// tagged is the policy with trust.tags and trust.rolePath.
func tagged(text, tags, path string) string {
	return strings.Replace(text, "trust: {", fmt.Sprintf("trust: {tags: {%s}, rolePath: %q, ", tags, path), 1)
}

// An organisation prescribes tags and a path: all that sync makes has them, with
// the permissions that bootstrap gives it and no others.
func TestSyncWritesTagsAndPath(t *testing.T) {
	for _, scope := range []string{"destination", "serviceAccount"} {
		f := newFixture(t, strings.Replace(tagged(policyText, "team: metrics", "/org/obs/"), "trust: {", "trust: {roleScope: "+scope+", ", 1))
		f.must("--apply", "--yes", "--write-policy", f.file)
		p := f.policy()
		keys, err := f.account.PutUser("sync", policy.SyncPermissions(p, issuer, accountID).String())
		testkit.Must(t, err)
		f.credentials(keys)
		f.sync(p)
		client := f.iam(f.account.AdminCredentials())
		list, err := client.ListRoles(t.Context(), &iam.ListRolesInput{PathPrefix: new("/org/obs/ampbridge/dev/")})
		if err != nil || len(list.Roles) != 1 {
			t.Fatalf("%s: roles %v, %v", scope, list, err)
		}
		tags := func() string {
			role, err := client.GetRole(t.Context(), &iam.GetRoleInput{RoleName: list.Roles[0].RoleName})
			testkit.Must(t, err)
			provider, err := client.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{
				OpenIDConnectProviderArn: new(policy.Issuer(issuer).ProviderARN("aws", accountID).String())})
			testkit.Must(t, err)
			return value(role.Role.Tags, "team") + "/" + value(provider.Tags, "team")
		}
		if tags() != "metrics/metrics" {
			t.Errorf("%s: tags %q", scope, tags())
		}
		// A tag changes; one that leaves the policy stays, and so do other people's.
		p.Trust.Tags = map[string]string{"Team": "platform"}
		if made := f.sync(p); made != 2 || tags() != "platform/platform" {
			t.Errorf("%s: %d changes, tags %q", scope, made, tags())
		}
		p.Trust.Tags = nil
		if made := f.sync(p); made != 0 {
			t.Errorf("%s: %d changes for a tag that left the policy", scope, made)
		}
		// Nothing beside the path, and nothing below it.
		for _, path := range []string{"/", "/org/obs/", "/ampbridge/dev/", "/org/obs/ampbridge/dev2/", "/org/obs/ampbridge/dev/x/"} {
			_, err := f.iam(keys).CreateRole(t.Context(), &iam.CreateRoleInput{
				RoleName: new("ampbridge.dev.thief"), Path: &path, PermissionsBoundary: new(boundary),
				AssumeRolePolicyDocument: list.Roles[0].AssumeRolePolicyDocument,
				Tags:                     []types.Tag{{Key: new(policy.TagOwner), Value: new(policy.Owner("dev", issuer))}},
			})
			if err == nil || !strings.Contains(err.Error(), "AccessDenied") {
				t.Errorf("%s: a role on %s: %v", scope, path, err)
			}
		}
	}
}

func value(tags []types.Tag, key string) string {
	for _, t := range tags {
		if strings.EqualFold(*t.Key, key) {
			return *t.Value
		}
	}
	return ""
}

// Sync and bootstrap agree on a tag: what they would put back in turn is refused.
func TestPolicysTagIsNotContradicted(t *testing.T) {
	f := newFixture(t, tagged(policyText, "team: metrics", "/"))
	for _, tag := range []string{"team=platform", "Team=metrics"} {
		if status, _, errs := f.run("", "--tag", tag); status == cli.OK ||
			!strings.Contains(errs, "under trust.tags") || len(f.cloud.Calls()) > 0 {
			t.Errorf("%s: status %d: %s", tag, status, errs)
		}
	}
	f.must("--apply", "--yes", "--tag", "team=metrics", "--tag", "stage=dev")
	for _, tags := range f.workspaceTags() {
		if tags["team"] != "metrics" || tags["stage"] != "dev" {
			t.Errorf("tags %v", tags)
		}
	}
}

// A provider that a Terraform module made becomes the cluster's where the policy says
// so, with sync's own permissions, and by bootstrap; another cluster's never does.
func TestForeignProviderIsAdoptedOnRequest(t *testing.T) {
	adopting := strings.Replace(policyText, "trust: {", "trust: {adoptProvider: true, ", 1)
	provider := new(policy.Issuer(issuer).ProviderARN("aws", accountID).String())
	for _, how := range []string{"sync", "bootstrap"} {
		f := newFixture(t, policyText)
		client := f.iam(f.account.AdminCredentials())
		if _, err := client.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
			Url: new(issuer), ClientIDList: []string{"sts.amazonaws.com"},
			Tags: []types.Tag{{Key: new("module"), Value: new("amp")}},
		}); err != nil {
			t.Fatal(err)
		}
		f.must("--apply", "--yes", "--write-policy", f.file)
		tags := func() map[string]string {
			out, err := client.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: provider})
			testkit.Must(t, err)
			return map[string]string{"owner": value(out.Tags, policy.TagOwner), "module": value(out.Tags, "module")}
		}
		p := f.policy()
		f.sync(p)
		if got := tags(); got["owner"] != "" {
			t.Errorf("%s: adopted without being asked: %v", how, got)
		}
		p.Trust.AdoptProvider = true
		if how == "sync" {
			keys, err := f.account.PutUser("sync", policy.SyncPermissions(p, issuer, accountID).String())
			testkit.Must(t, err)
			f.credentials(keys)
			f.sync(p)
		} else {
			f.write(adopting)
			f.must("--apply", "--yes")
		}
		if got := tags(); got["owner"] != policy.Owner("dev", issuer) || got["module"] != "amp" {
			t.Errorf("%s: tags %v", how, got)
		}
		if again := f.sync(p); again != 0 {
			t.Errorf("%s: %d changes again", how, again)
		}
	}
	// Another cluster's stays.
	f := newFixture(t, adopting)
	if _, err := f.iam(f.account.AdminCredentials()).CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
		Url: new(issuer), ClientIDList: []string{"sts.amazonaws.com"},
		Tags: []types.Tag{{Key: new(policy.TagOwner), Value: new("another")}},
	}); err != nil {
		t.Fatal(err)
	}
	if status, out, _ := f.run("", "--apply", "--yes"); status != cli.Failed || !strings.Contains(out, "belongs to cluster") {
		t.Errorf("status %d: %s", status, out)
	}
}

// An organisation's service control policy demands a tag on whatever is made: with
// trust.tags bootstrap and sync have it, without it AWS's refusal is shown.
func TestTagsThatAnOrganisationDemands(t *testing.T) {
	const control = `{"Version":"2012-10-17","Statement":{"Effect":"Deny",
		"Action":["iam:CreateRole","iam:CreatePolicy","iam:CreateOpenIDConnectProvider","aps:CreateWorkspace"],"Resource":"*",
		"Condition":{"Null":{"aws:RequestTag/cost-center":"true"}}}}`
	for _, tags := range []string{"", `cost-center: "42"`} {
		f := newFixture(t, tagged(policyText, tags, ""))
		testkit.Must(t, f.account.SetServiceControlPolicy(control))
		status, _, errs := f.run("", "--apply", "--yes", "--write-policy", f.file)
		if tags == "" {
			if status != cli.Failed || !strings.Contains(errs, "explicit deny in a service control policy") || len(f.writes(0)) > 0 {
				t.Errorf("status %d, %v: %s", status, f.writes(0), errs)
			}
			continue
		}
		if status != cli.OK {
			t.Fatal(errs)
		}
		p := f.policy()
		keys, err := f.account.PutUser("sync", policy.SyncPermissions(p, issuer, accountID).String())
		testkit.Must(t, err)
		f.credentials(keys)
		if made := f.sync(p); made == 0 {
			t.Error("sync made nothing")
		}
	}
}
