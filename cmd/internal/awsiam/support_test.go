package awsiam_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
)

const (
	accountID = "111122223333"
	region    = "eu-west-1"
	issuer    = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
	roleName  = "ampbridge.dev.central"

	policyText = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
grants:
- {namespaces: [monitoring], serviceAccounts: ["prometheus*"], destinations: [central]}
trust: {permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}
`
	boundary = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}}`
)

// fixture is the double with an account, an issuer that AWS can reach, and a
// policy.
type fixture struct {
	*testing.T
	ctx     context.Context
	cloud   *awstest.Cloud
	account *awstest.Account
	signer  *awstest.Signer
	issuer  policy.Issuer
	policy  *policy.Policy
}

func newFixture(t *testing.T, text string) *fixture {
	t.Helper()
	f := &fixture{
		T: t, ctx: t.Context(), policy: newPolicy(t, text),
		cloud: awstest.Start(t, awstest.Options{}), issuer: issuer,
		signer: awstest.NewSigner(issuer, jose.RS256),
	}
	if _, err := f.cloud.RegisterIssuer(issuer, f.signer, awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	d := f.policy.Destinations[0].Workspace
	f.account = f.cloud.AccountIn(d.Partition, d.Account)
	if _, err := f.account.PutManagedPolicy("boundary", boundary); err != nil {
		t.Fatal(err)
	}
	f.environment(f.account.AdminCredentials())
	return f
}

func newPolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// environment gives the SDK's default chain these credentials and nothing of the
// machine's.
func (f *fixture) environment(credentials awstest.Credentials) {
	f.Helper()
	empty := filepath.Join(f.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		f.Fatal(err)
	}
	environment := append(f.cloud.Environ(), credentials.Environ()...)
	environment = append(
		environment,
		"AWS_CONFIG_FILE="+empty,
		"AWS_SHARED_CREDENTIALS_FILE="+empty,
		"AWS_EC2_METADATA_DISABLED=true",
		"AWS_REGION=",
		"AWS_PROFILE=",
	)
	for _, v := range environment {
		name, value, _ := strings.Cut(v, "=")
		f.Setenv(name, value)
	}
}

// admin is the account's own client, for what happens behind sync's back.
func (f *fixture) admin() *iam.Client {
	return iam.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
}

func (f *fixture) must(_ any, err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// plan observes and compares, for the named service accounts of namespace
// monitoring.
func (f *fixture) plan(i *awsiam.IAM, names ...string) plan.Plan {
	f.Helper()
	var accounts []plan.ServiceAccount
	for _, name := range names {
		accounts = append(
			accounts,
			plan.ServiceAccount{Namespace: "monitoring", Name: name, Injection: policy.InjectionEnabled, Created: time.Now()},
		)
	}
	observed := map[string]plan.Account{}
	for _, target := range plan.Targets(f.policy, f.issuer) {
		observed[target.Account] = i.Observe(f.ctx, target)
	}
	return plan.Compute(plan.Input{Policy: f.policy, Issuer: f.issuer, ServiceAccounts: accounts, Accounts: observed})
}

func (f *fixture) apply(i *awsiam.IAM, p plan.Plan) {
	f.Helper()
	if len(p.Refusals) > 0 {
		f.Fatalf("refused: %v", p.Refusals)
	}
	for _, c := range p.Changes {
		if err := i.Apply(f.ctx, c); err != nil {
			f.Fatalf("%s: %v", c.Title(), err)
		}
	}
}

// converge applies plans as a first run does, and checks that a second has
// nothing to do.
func (f *fixture) converge(names ...string) {
	f.Helper()
	i := awsiam.New(f.policy.Trust.Accounts)
	f.apply(i, f.plan(i, names...))
	if again := f.plan(i, names...); !again.InSync() {
		f.Fatalf("not in sync after a run:\n%s", again)
	}
}

// assume asks the double's STS for a session, with a token of the service account.
func (f *fixture) assume(name string) error {
	client := sts.NewFromConfig(aws.Config{Region: region, BaseEndpoint: &f.cloud.URL})
	_, err := client.AssumeRoleWithWebIdentity(f.ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          aws.String(f.policy.Role(f.policy.Destinations[0]).String()),
		RoleSessionName:  aws.String("test"),
		WebIdentityToken: aws.String(f.signer.Token("system:serviceaccount:monitoring:"+name, "sts.amazonaws.com")),
	})
	return err
}

// calls counts IAM's, from the n-th call on: reads and writes.
func (f *fixture) calls(n int) (reads, writes int) {
	for _, c := range f.cloud.Calls()[n:] {
		switch {
		case c.Service != "iam":
		case strings.HasPrefix(c.Action, "Get"), strings.HasPrefix(c.Action, "List"):
			reads++
		default:
			writes++
		}
	}
	return reads, writes
}
