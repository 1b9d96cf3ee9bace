package bootstrap_test

import (
	"context"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/cmd/internal/cli/clitest"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const twoAccounts = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new"}
- {name: backup, workspace: "arn:aws:aps:eu-west-1:444455556666:workspace/ws-new"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [central, backup]}
trust:
  permissionsBoundary: "` + boundary + `"
  accounts:
  - {id: "444455556666", syncRole: "arn:aws:iam::444455556666:role/sync-of-dev"}
`

// Two accounts are bootstrapped with nothing but the cluster and the policy;
// sync then works in both, with the token of its own service account and no
// other credentials; and whoever has that token can do nothing else.
func TestSyncWorksAfterBootstrap(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	ctx := t.Context()
	for namespace, account := range map[string]string{"monitoring": "prometheus", "ampbridge-system": "ampbridge-sync"} {
		testkit.Must(t, c.Namespace(ctx, namespace, map[string]string{"ampbridge.io/injection": "enabled"}))
		object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}
		if _, err := c.Client().CoreV1().ServiceAccounts(namespace).Create(ctx, object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixture(t, twoAccounts)
	if _, err := f.cloud.RegisterIssuer(c.Issuer, c.OIDC(), awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	second := f.cloud.Account(secondID)
	// The other account first: sync's role does not exist yet, so nobody can trust it.
	f.credentials(second.AdminCredentials())
	if status, _, errs := f.run(
		"",
		"--kubeconfig",
		c.Kubeconfig(),
		"--account",
		secondID,
		"--apply",
		"--yes",
	); status != cli.Failed ||
		!strings.Contains(errs, "bootstrap that account") {
		t.Fatalf("status %d: %s", status, errs)
	}
	f.credentials(f.account.AdminCredentials())
	f.must("--kubeconfig", c.Kubeconfig(), "--account", accountID, "--apply", "--yes", "--write-policy", f.file)
	f.credentials(second.AdminCredentials())
	f.must("--kubeconfig", c.Kubeconfig(), "--account", secondID, "--apply", "--yes", "--write-policy", f.file)
	f.policy()

	token := func(namespace, account, audience string) string {
		t.Helper()
		token, err := c.Token(ctx, namespace, account, audience, 3600)
		testkit.Must(t, err)
		return token
	}
	f.credentials(awstest.Credentials{})
	file := testkit.TempFile(t, "token", token("ampbridge-system", "ampbridge-sync", "sts.amazonaws.com"))
	const role = "arn:aws:iam::" + accountID + ":role/" + roleName
	for name, value := range map[string]string{"AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": file, "AWS_REGION": region} {
		t.Setenv(name, value)
	}
	sync := func() string {
		t.Helper()
		status, out, errs := clitest.Run(ctx, "", "sync", "--once", "--policy", f.file, "--kubeconfig", c.Kubeconfig())
		if status != cli.OK {
			t.Fatalf("status %d: %s%s", status, out, errs)
		}
		return out
	}
	if out := sync(); !strings.Contains(out, "sync: in sync: 4 of 4 changes made") {
		t.Error(out)
	}
	if out := sync(); !strings.Contains(out, "in sync: nothing to change") {
		t.Error(out)
	}
	// Listing the account in which sync begins changes nothing: it is that role already.
	text := testkit.ReadFile(t, f.file)
	f.write(strings.Replace(text, "  accounts:\n", "  accounts:\n  - {id: \""+accountID+"\", syncRole: \""+role+"\"}\n", 1))
	if out := sync(); !strings.Contains(out, "in sync: nothing to change") {
		t.Error(out)
	}
	for _, account := range []*awstest.Account{f.account, second} {
		for _, name := range []string{"ampbridge.dev.central", "ampbridge.dev.backup"} {
			_, err := iam.NewFromConfig(f.cloud.Config(account.AdminCredentials(), region)).GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
			if exists := err == nil; exists != ((account == second) == strings.HasSuffix(name, "backup")) {
				t.Errorf("account %s, role %s: %v", account.ID, name, err)
			}
		}
	}

	assume := func(token string) (awstest.Credentials, error) {
		client := sts.New(sts.Options{Region: region, BaseEndpoint: &f.cloud.URL, Retryer: aws.NopRetryer{}})
		out, err := client.AssumeRoleWithWebIdentity(
			ctx,
			&sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(role), RoleSessionName: aws.String("test"), WebIdentityToken: &token},
		)
		if err != nil {
			return awstest.Credentials{}, err
		}
		return awstest.Credentials{
			AccessKeyID:     *out.Credentials.AccessKeyId,
			SecretAccessKey: *out.Credentials.SecretAccessKey,
			SessionToken:    *out.Credentials.SessionToken,
		}, nil
	}
	for name, token := range map[string]string{
		"another service account": token("ampbridge-system", "default", "sts.amazonaws.com"),
		"a Prometheus":            token("monitoring", "prometheus", "sts.amazonaws.com"),
		"another audience":        token("ampbridge-system", "ampbridge-sync", "kubernetes"),
	} {
		if _, err := assume(token); err == nil {
			t.Errorf("%s becomes sync", name)
		}
	}
	session, err := assume(token("ampbridge-system", "ampbridge-sync", "sts.amazonaws.com"))
	testkit.Must(t, err)
	f.confined(ctx, session, second)
}

// confined tries what a thief of sync's session would.
func (f *fixture) confined(ctx context.Context, session awstest.Credentials, second *awstest.Account) {
	f.Helper()
	client := iam.NewFromConfig(f.cloud.Config(session, region))
	const (
		all   = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
		trust = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}}`
	)
	other := iam.NewFromConfig(f.cloud.Config(second.AdminCredentials(), region))
	open := `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + accountID + `"},"Action":"sts:AssumeRole"}}`
	if _, err := other.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("open"), AssumeRolePolicyDocument: &open}); err != nil {
		f.Fatal(err)
	}
	for name, try := range map[string]func() error{
		"widen its own permissions": func() error {
			_, err := client.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: aws.String(roleName), PolicyName: aws.String("ampbridge"),
				PolicyDocument: aws.String(all)})
			return err
		},
		"open its own trust": func() error {
			_, err := client.UpdateAssumeRolePolicy(ctx,
				&iam.UpdateAssumeRolePolicyInput{RoleName: aws.String(roleName), PolicyDocument: aws.String(trust)})
			return err
		},
		"become an administrator": func() error {
			_, err := client.AttachRolePolicy(ctx, &iam.AttachRolePolicyInput{RoleName: aws.String(roleName),
				PolicyArn: aws.String("arn:aws:iam::aws:policy/" +
					"AmazonPrometheusQueryAccess")})
			return err
		},
		"widen the boundary": func() error {
			_, err := client.CreatePolicyVersion(ctx, &iam.CreatePolicyVersionInput{PolicyArn: aws.String(boundary),
				PolicyDocument: aws.String(all), SetAsDefault: true})
			return err
		},
		"delete the provider": func() error {
			_, err := client.DeleteOpenIDConnectProvider(ctx,
				&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(f.policyProvider())})
			return err
		},
		"make a role beyond the boundary": func() error {
			_, err := client.CreateRole(ctx, &iam.CreateRoleInput{RoleName: aws.String("ampbridge.dev.x"), Path: aws.String("/ampbridge/dev/"),
				AssumeRolePolicyDocument: aws.String(trust)})
			return err
		},
		"assume what trusts the account": func() error {
			_, err := sts.NewFromConfig(f.cloud.Config(session, region)).AssumeRole(ctx,
				&sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::" + secondID + ":role/open"), RoleSessionName: aws.String("thief")})
			return err
		},
	} {
		if err := try(); err == nil || !strings.Contains(err.Error(), "AccessDenied") {
			f.Errorf("%s: %v, want AccessDenied", name, err)
		}
	}
	// Nobody else of the first account may be sync in the second.
	admin := sts.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
	if _, err := admin.AssumeRole(
		ctx,
		&sts.AssumeRoleInput{RoleArn: aws.String("arn:aws:iam::" + secondID + ":role/sync-of-dev"), RoleSessionName: aws.String("thief")},
	); err == nil ||
		!strings.Contains(err.Error(), "AccessDenied") {
		f.Errorf("an administrator of the first account who would be sync in the second: %v, want AccessDenied", err)
	}
}

func (f *fixture) policyProvider() string {
	return "arn:aws:iam::" + accountID + ":oidc-provider/" + strings.TrimPrefix(cluster.DefaultIssuer, "https://")
}
