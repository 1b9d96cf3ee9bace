package bootstrap_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	eksCluster = "arn:aws:eks:eu-west-1:111122223333:cluster/dev"
	homeRole   = "arn:aws:iam::111122223333:role/ampbridge-sync.dev"
	awayRole   = "arn:aws:iam::444455556666:role/sync-of-dev"
)

var podAccounts = strings.Replace(twoAccounts, "{name: dev}", `{name: dev, issuer: "`+issuer+`"}`, 1)

// podOf is a pod of sync, or of another service account.
func podOf(namespace, account string) awstest.PodIdentity {
	return awstest.PodIdentity{ClusterARN: eksCluster, Namespace: namespace, ServiceAccount: account, Pod: account + "-0"}
}

// trust is the trust document of sync's role.
func (f *fixture) trust() string {
	f.Helper()
	out, err := f.iam(f.account.AdminCredentials()).GetRole(f.Context(), &iam.GetRoleInput{RoleName: new(roleName)})
	testkit.Must(f, err)
	d, err := policy.ParseDocument(*out.Role.AssumeRolePolicyDocument)
	testkit.Must(f, err)
	return d.String()
}

// EKS Pod Identity gives sync its role, and with it sync reaches the other accounts:
// the tags of the session go along.
func TestPodIdentityReachesEveryAccount(t *testing.T) {
	f := newFixture(t, podAccounts)
	if _, err := f.account.PodIdentitySession(homeRole, podOf("ampbridge-system", "ampbridge-sync")); err == nil {
		t.Fatal("a role that does not exist was assumed")
	}
	f.must("--account", accountID, "--apply", "--yes")
	if _, err := f.account.PodIdentitySession(homeRole, podOf("ampbridge-system", "ampbridge-sync")); err == nil {
		t.Fatal("Pod Identity got the role, and was not asked for")
	}
	f.must("--account", accountID, "--apply", "--yes", "--pod-identity")
	f.credentials(f.cloud.Account(secondID).AdminCredentials())
	f.must("--account", secondID, "--apply", "--yes")
	for _, pod := range []awstest.PodIdentity{podOf("ampbridge-system", "default"), podOf("monitoring", "ampbridge-sync")} {
		if _, err := f.account.PodIdentitySession(homeRole, pod); err == nil {
			t.Errorf("%+v got sync's role", pod)
		}
	}
	session, err := f.account.PodIdentitySession(homeRole, podOf("ampbridge-system", "ampbridge-sync"))
	testkit.Must(t, err)
	client := sts.NewFromConfig(f.cloud.Config(session, region))
	if _, err := client.AssumeRole(t.Context(), &sts.AssumeRoleInput{
		RoleArn: new(awayRole), RoleSessionName: new("ampbridge-sync"),
	}); err != nil {
		t.Errorf("the other account: %v", err)
	}
	// A run without the flag keeps it; another takes it away.
	f.credentials(f.account.AdminCredentials())
	if out := f.must("--account", accountID, "--apply", "--yes"); !strings.Contains(out, "still trusts EKS Pod Identity") ||
		!strings.Contains(f.trust(), "pods.eks.amazonaws.com") {
		t.Errorf("%s\n%s", out, f.trust())
	}
	f.must("--account", accountID, "--apply", "--yes", "--prune-trust")
	if trust := f.trust(); strings.Contains(trust, "pods.eks.amazonaws.com") {
		t.Error(trust)
	}
}

// What an admin added to the trust document of sync's role is shown, and stays.
func TestAddedTrustIsShownAndKept(t *testing.T) {
	f := newFixture(t, policyText)
	f.must("--apply", "--yes")
	whole, own := f.trust(), `"Statement":[`
	for name, added := range map[string]string{
		"another principal":              `{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:root"},"Action":"sts:AssumeRole"}`,
		"another subject of the cluster": strings.Replace(whole[strings.Index(whole, own)+len(own):len(whole)-2], `"Sid":"Token",`, "", 1),
	} {
		added = strings.Replace(added, ":ampbridge-sync", ":another", 1)
		put := func(document string) {
			if _, err := f.iam(f.account.AdminCredentials()).UpdateAssumeRolePolicy(t.Context(), &iam.UpdateAssumeRolePolicyInput{
				RoleName: new(roleName), PolicyDocument: new(document),
			}); err != nil {
				t.Fatal(err)
			}
		}
		with := strings.Replace(whole, own, own+added+",", 1)
		put(with)
		n := len(f.cloud.Calls())
		if out := f.must("--apply", "--yes"); !strings.Contains(out, "has a statement that bootstrap did not write and does not change") ||
			len(f.writes(n)) > 0 {
			t.Errorf("%s: %v\n%s", name, f.writes(n), out)
		}
		// Its own statement is corrected beside it.
		put(strings.Replace(with, `"Sid":"Token","Effect":"Allow"`, `"Sid":"Token","Effect":"Deny"`, 1))
		f.must("--apply", "--yes")
		sameTrust(t, name, f.trust(), with)
		f.must("--apply", "--yes", "--prune-trust")
		sameTrust(t, name, f.trust(), whole)
	}
}

func sameTrust(t *testing.T, name, got, want string) {
	t.Helper()
	a, err := policy.ParseDocument(got)
	b, failed := policy.ParseDocument(want)
	if err != nil || failed != nil || !policy.Equal(a, b) {
		t.Errorf("%s: %v %v\ngot  %s\nwant %s", name, err, failed, got, want)
	}
}

// Terraform has what its file says: a file that was written with the flag keeps it.
func TestTerraformAndScriptHavePodIdentity(t *testing.T) {
	f := newFixture(t, policyText)
	file := filepath.Join(t.TempDir(), "bootstrap.tf")
	for _, c := range []struct {
		args string
		want bool
	}{{"", false}, {"--pod-identity", true}, {"", true}, {"--prune-trust", false}} {
		f.must(append([]string{"-o", "terraform", "--file", file}, strings.Fields(c.args)...)...)
		if got := strings.Contains(testkit.ReadFile(t, file), "pods.eks.amazonaws.com"); got != c.want {
			t.Errorf("%q: Pod Identity %v, want %v", c.args, got, c.want)
		}
	}
	if out := f.must("-o", "aws-cli", "--pod-identity"); !strings.Contains(out, "pods.eks.amazonaws.com") {
		t.Error(out)
	}
}
