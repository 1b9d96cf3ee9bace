package reconcile_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/test/awstest"
)

func TestRemove(t *testing.T) {
	b := start(t)
	confirmed := func(o *reconcile.Options) { o.Once, o.Remove, o.Yes = false, true, true }

	t.Run("all of ours and nothing else", func(t *testing.T) {
		b := b.aws(t)
		b.inSync(policyText, 3)
		// A destination that is gone from the policy left a closed role behind.
		renamed := strings.ReplaceAll(policyText, "central", "renamed")
		b.inSync(renamed, 3)
		provider := b.account.ProviderARN(b.cluster.Issuer)
		b.foreignRole("/ampbridge/dev/", "admins", `{"AWS":"111122223333"}`, "sts:AssumeRole")
		b.foreignRole("/", "irsa", `{"Federated":"`+provider+`"}`, "sts:AssumeRoleWithWebIdentity")

		for _, c := range []struct {
			change    func(*reconcile.Options)
			fails     bool
			lastWords string
		}{
			{func(o *reconcile.Options) { confirmed(o); o.Yes = false }, true, "sync: dry run: nothing was changed\n"},
			{func(o *reconcile.Options) { confirmed(o); o.Yes, o.DryRun = false, true }, false, "sync: dry run: nothing was changed\n"},
		} {
			output, _, writes, err := b.sync(renamed, c.change)
			if (err != nil) != c.fails || writes != 0 || !strings.Contains(output, "plan: 4 to delete, 0 refused") ||
				!strings.HasSuffix(output, c.lastWords) {
				t.Errorf("unconfirmed: %d writes, error %v, output:\n%s", writes, err, output)
			}
		}
		output, _, writes, err := b.sync(renamed, confirmed)
		if err != nil || writes != 4 || !strings.HasSuffix(output, "sync: removed: 4 of 4 deletions made, 0 refused\n") ||
			!strings.Contains(output, "roles that stay trust it: arn:aws:iam::111122223333:role/irsa") {
			t.Errorf("%d writes, error %v, output:\n%s", writes, err, output)
		}
		if got := b.roles(); got != "admins irsa" {
			t.Errorf("roles left: %s", got)
		}

		_, err = b.admin().DeleteRole(b.ctx, &iam.DeleteRoleInput{RoleName: aws.String("irsa")})
		b.must(err)
		output, _, writes, err = b.sync(renamed, confirmed)
		if err != nil || writes != 1 {
			t.Errorf("the provider: %d writes, error %v, output:\n%s", writes, err, output)
		}
		output, _, writes, err = b.sync(renamed, confirmed)
		if err != nil || writes != 0 {
			t.Errorf("nothing is left: %d writes, error %v, output:\n%s", writes, err, output)
		}
		providers, err := b.admin().ListOpenIDConnectProviders(b.ctx, &iam.ListOpenIDConnectProvidersInput{})
		b.must(err)
		if len(providers.OpenIDConnectProviderList) != 0 || b.roles() != "admins" {
			t.Errorf("left: %v, %s", providers.OpenIDConnectProviderList, b.roles())
		}
		b.inSync(policyText, 3) // and all over again
	})

	t.Run("after the cluster is gone", func(t *testing.T) {
		b := b.aws(t)
		b.inSync(policyText, 3)
		gone := func(o *reconcile.Options) { confirmed(o); o.Kubeconfig = "gone" }
		_, _, writes, err := b.sync(policyText, gone)
		if err == nil || writes != 0 || !strings.Contains(err.Error(), "write its issuer into the policy as cluster.issuer") {
			t.Errorf("without its issuer: %d writes, %v", writes, err)
		}
		elsewhere := strings.Replace(policyText, "{name: dev}", `{name: dev, issuer: "https://oidc.example.com/other"}`, 1)
		if output, _, writes, err := b.sync(elsewhere, gone); err != nil || writes != 0 || b.roles() == "" {
			t.Errorf("with the issuer of another cluster: %d writes, %v:\n%s", writes, err, output)
		}
		if _, _, writes, err := b.sync(elsewhere, confirmed); writes != 0 || !errors.As(err, &kube.OtherIssuerError{}) ||
			!strings.Contains(err.Error(), "KUBECONFIG=/dev/null") {
			t.Errorf("with another cluster than the policy's: %d writes, %v", writes, err)
		}
		own := strings.Replace(policyText, "{name: dev}", `{name: dev, issuer: "`+b.cluster.Issuer+`"}`, 1)
		if output, _, writes, err := b.sync(own, gone); err != nil || writes != 3 || b.roles() != "" {
			t.Errorf("%d writes, %v, roles %q:\n%s", writes, err, b.roles(), output)
		}
	})

	t.Run("a role that cannot be deleted keeps the provider", func(t *testing.T) {
		b := b.aws(t)
		b.inSync(policyText, 3)
		_, err := b.admin().PutRolePolicy(
			b.ctx,
			&iam.PutRolePolicyInput{RoleName: aws.String(roleName), PolicyName: aws.String("by-hand"), PolicyDocument: aws.String(
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`)},
		)
		b.must(err)
		output, _, _, err := b.sync(policyText, confirmed)
		if err == nil || !strings.Contains(output, "DeleteConflict") ||
			!strings.Contains(output, "DeleteOpenIDConnectProvider: not tried, because DeleteRole failed") {
			t.Errorf("error %v, output:\n%s", err, output)
		}
	})

	t.Run("killed at any call, the next run ends it", func(t *testing.T) {
		for _, action := range []string{"DeleteRolePolicy", "DeleteRole", "DeleteOpenIDConnectProvider"} {
			b := b.aws(t)
			b.inSync(policyText, 3)
			denied := b.cloud.Fail("iam:"+action, awstest.Deny)
			if _, _, _, err := b.sync(policyText, confirmed); err == nil {
				t.Errorf("%s denied: no error", action)
			}
			denied.Stop()
			if output, _, _, err := b.sync(policyText, confirmed); err != nil || b.roles() != "" {
				t.Errorf("after %s: roles %s, error %v, output:\n%s", action, b.roles(), err, output)
			}
		}
	})
}

func (b *bridge) foreignRole(path, name, principal, action string) {
	b.Helper()
	_, err := b.admin().CreateRole(b.ctx, &iam.CreateRoleInput{Path: &path, RoleName: &name, AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal + `,"Action":"` + action + `"}]}`)})
	b.must(err)
}

func (b *bridge) roles() string {
	b.Helper()
	list, err := b.admin().ListRoles(b.ctx, &iam.ListRolesInput{})
	b.must(err)
	var names []string
	for _, r := range list.Roles {
		names = append(names, aws.ToString(r.RoleName))
	}
	return strings.Join(names, " ")
}
