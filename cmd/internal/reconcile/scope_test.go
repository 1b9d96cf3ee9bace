package reconcile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// each gives every service account of namespace many a role of its own.
var each = strings.NewReplacer(
	`["monitoring", "unlabelled"]`, "[many]", "trust: {", "trust: {roleScope: serviceAccount, ",
).Replace(policyText)

func roleOf(name string) string {
	return roleARN + ".many." + name
}

func TestARoleForEachServiceAccount(t *testing.T) {
	const accounts = 80
	b := start(t)
	b.must(b.cluster.Namespace(b.ctx, "many", map[string]string{"ampbridge.io/injection": "enabled"}))
	for n := range accounts {
		b.serviceAccount("many", fmt.Sprintf("prometheus-%02d", n))
	}

	t.Run("from nothing, with the other scope before and after", func(t *testing.T) {
		b := b.aws(t)
		b.account.SetQuotas(func(q *awstest.Quotas) { q.TrustPolicy = 1 << 14 })
		raised := func(o *reconcile.Options) { o.TrustQuota = 1 << 14 }
		all := strings.Replace(each, "roleScope: serviceAccount, ", "", 1)
		assumes := func(role string) error { return b.assumeRole(role, "many", "prometheus-07") }
		for _, step := range []struct {
			policy       string
			writes       int
			opens, shuts string
		}{
			{each, 1 + 2*accounts, roleOf("prometheus-07"), roleOf("prometheus-08")},
			{each, 0, roleOf("prometheus-07"), roleARN},
			{all, 2 + accounts, roleARN, roleOf("prometheus-07")},
			{all, 0, roleARN, roleOf("prometheus-07")},
			{each, accounts + 1, roleOf("prometheus-07"), roleARN},
		} {
			output, _, writes, err := b.sync(step.policy, raised)
			if err != nil || writes != step.writes || !strings.Contains(output, "\nsync: in sync: ") {
				t.Fatalf("%d writes (want %d), error %v, output:\n%.3000s", writes, step.writes, err, output)
			}
			if err := assumes(step.opens); err != nil {
				t.Errorf("%s: %v", step.opens, err)
			}
			if assumes(step.shuts) == nil {
				t.Errorf("%s was assumed", step.shuts)
			}
		}
	})

	t.Run("nothing to do", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(strings.Replace(each, "trust: {", "trust: {interval: 1s, ", 1))
		b.eventually("in sync", p.inSync)
		// The pass after the one that made them reads them all once more.
		b.eventually("all were read", func() bool { return b.actions(0)["GetRolePolicy"] >= accounts })
		first := b.actions(0)["GetOpenIDConnectProvider"]
		b.eventually("a pass", func() bool { return b.actions(0)["GetOpenIDConnectProvider"] > first+1 })
		before := len(b.cloud.Calls())
		b.eventually("five passes", func() bool { return b.actions(before)["GetOpenIDConnectProvider"] >= 6 })
		b.must(p.stop())
		count := b.actions(before)
		passes := count["GetOpenIDConnectProvider"]
		// In turn: 80 roles in 36 passes.
		const inTurn = 3
		turns := inTurn * (passes + 1)
		if len(count) != 6 || count["ListRoles"] > passes+1 || count["GetRole"] > turns || count["GetRolePolicy"] > turns ||
			count["ListRolePolicies"] > turns || count["ListAttachedRolePolicies"] > turns {
			t.Errorf("%d passes: %v", passes, count)
		}
		t.Logf("%d roles, %d passes: %v", accounts, passes, count)
	})

	t.Run("what is changed by hand", func(t *testing.T) {
		b := b.aws(t)
		p := b.control(strings.Replace(each, "trust: {", "trust: {interval: 1s, ", 1))
		b.eventually("in sync", p.inSync)
		name := aws.String(strings.TrimPrefix(roleOf("prometheus-42"), "arn:aws:iam::111122223333:role/ampbridge/dev/"))
		_, err := b.admin().UpdateAssumeRolePolicy(b.ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: name, PolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`)})
		b.must(err)
		before := b.cloud.Now()
		b.eventually("trust is fixed at the next pass", func() bool {
			r, err := b.admin().GetRole(b.ctx, &iam.GetRoleInput{RoleName: name})
			b.must(err)
			return strings.Contains(aws.ToString(r.Role.AssumeRolePolicyDocument), "prometheus-42")
		})
		t.Logf("fixed after %v", b.cloud.Now().Sub(before))
		_, err = b.admin().DeleteRolePermissionsBoundary(b.ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: name})
		b.must(err)
		b.eventually("the boundary is fixed in its turn", func() bool {
			r, err := b.admin().GetRole(b.ctx, &iam.GetRoleInput{RoleName: name})
			b.must(err)
			return r.Role.PermissionsBoundary != nil
		})
		_, err = b.admin().DeleteRolePolicy(b.ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: aws.String("ampbridge")})
		b.must(err)
		_, err = b.admin().DeleteRole(b.ctx, &iam.DeleteRoleInput{RoleName: name})
		b.must(err)
		b.eventually("a role that is gone is made again", func() bool { return strings.Contains(b.roles(), "prometheus-42") })
	})
}

// What cannot come out well is refused before anything is made.
func TestPreflight(t *testing.T) {
	b := start(t)
	refused := func(t *testing.T, b *bridge, text, says string) {
		t.Helper()
		output, _, writes, err := b.sync(text, nil)
		if err == nil || writes != 0 || !strings.Contains(output, says) {
			t.Errorf("%d writes, error %v, want one that says %q:\n%s", writes, err, says, output)
		}
	}

	t.Run("no room for roles", func(t *testing.T) {
		b := b.aws(t)
		b.account.SetQuotas(func(q *awstest.Quotas) { q.Roles = 0 })
		refused(t, b, policyText, `raise its quota "Roles per account"`)
		b.account.SetQuotas(func(q *awstest.Quotas) { q.Roles = 1 })
		b.inSync(policyText, 3)
	})
	t.Run("no room for a provider", func(t *testing.T) {
		b := b.aws(t)
		b.account.SetQuotas(func(q *awstest.Quotas) { q.Providers = 101 })
		for n := range 100 {
			_, err := b.admin().CreateOpenIDConnectProvider(b.ctx, &iam.CreateOpenIDConnectProviderInput{
				Url: aws.String(fmt.Sprintf("https://issuer.example/%d", n)), ThumbprintList: []string{strings.Repeat("0", 40)}})
			b.must(err)
		}
		refused(t, b, policyText, "tell sync with --provider-quota")
		output, _, writes, err := b.sync(policyText, func(o *reconcile.Options) { o.ProviderQuota = 101 })
		if err != nil || writes != 3 {
			t.Errorf("told of the raised quota: %d writes, error %v\n%s", writes, err, output)
		}
	})
	t.Run("a workspace that is not there", func(t *testing.T) {
		b := b.aws(t)
		typo := strings.Replace(policyText, "ws-0001", "ws-0010", 1)
		refused(t, b, typo, "destinations[0].workspace does not exist")
		b.inSync(policyText, 3)
		refused(t, b, typo, "aws amp list-workspaces --region eu-west-1")
		b.must(b.assume("monitoring", "prometheus"))

		p := b.control(strings.Replace(typo, "trust: {", "trust: {interval: 1s, ", 1))
		b.eventually("it is refused", func() bool { return p.metric("ampbridge_sync_refusals") == 1 })
		b.account.AddWorkspace(region, "ws-0010")
		b.eventually("it is there", func() bool { return p.metric("ampbridge_sync_refusals") == 0 })
	})
	t.Run("permissions that are older than the preflight", func(t *testing.T) {
		b := b.aws(t)
		for _, action := range []string{"aps:DescribeWorkspace", "iam:GetAccountSummary"} {
			defer b.cloud.Fail(action, awstest.Deny).Stop()
		}
		output, _, writes, err := b.sync(policyText, nil)
		if err != nil || writes != 3 ||
			!strings.Contains(output, "cannot find out whether the workspace exists: DescribeWorkspace: AccessDenied") ||
			!strings.Contains(output, "GetAccountSummary: AccessDenied") {
			t.Errorf("%d writes, error %v:\n%s", writes, err, output)
		}
	})
}

func TestThumbprints(t *testing.T) {
	b := start(t).aws(t)
	i, err := b.cloud.RegisterIssuer("https://private.example/x", b.cluster.OIDC(), awstest.PrivateCA)
	b.must(err)
	foreign := strings.Repeat("0", 40)
	_, err = b.admin().CreateOpenIDConnectProvider(
		b.ctx,
		&iam.CreateOpenIDConnectProviderInput{Url: &b.cluster.Issuer, ClientIDList: []string{audience}, ThumbprintList: []string{foreign}},
	)
	b.must(err)
	text := strings.Replace(policyText, "cluster: {", "cluster: {issuerCA: "+fmt.Sprintf("%q", i.CA())+", ", 1)
	output, _, _, err := b.sync(text, nil)
	arn := policy.Issuer(b.cluster.Issuer).ProviderARN("aws", accountID).String()
	if err != nil || !strings.Contains(output, "--open-id-connect-provider-arn '"+arn+"' --thumbprint-list "+i.Thumbprint()) {
		t.Errorf("a provider of somebody else's: error %v\n%s", err, output)
	}
	provider := func() []string {
		p, err := b.admin().GetOpenIDConnectProvider(b.ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn})
		b.must(err)
		return p.ThumbprintList
	}
	if got := provider(); len(got) != 1 || got[0] != foreign {
		t.Errorf("it was changed: %v", got)
	}
	_, err = b.admin().DeleteOpenIDConnectProvider(b.ctx, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn})
	b.must(err)
	b.inSync(text, 1)
	if got := provider(); len(got) != 1 || got[0] != i.Thumbprint() {
		t.Errorf("made with %v, want %s", got, i.Thumbprint())
	}
	b.inSync(policyText, 0) // a public authority vouches now: thumbprints do no harm
}
