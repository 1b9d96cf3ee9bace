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
	w := &fixture{
		T: t, ctx: t.Context(), policy: newPolicy(t, text),
		cloud: awstest.Start(t, awstest.Options{}), issuer: issuer,
		signer: awstest.NewSigner(issuer, jose.RS256),
	}
	if _, err := w.cloud.RegisterIssuer(issuer, w.signer, awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	d := w.policy.Destinations[0].Workspace
	w.account = w.cloud.AccountIn(d.Partition, d.Account)
	if _, err := w.account.PutManagedPolicy("boundary", boundary); err != nil {
		t.Fatal(err)
	}
	w.environment(w.account.AdminCredentials())
	return w
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
func (w *fixture) environment(credentials awstest.Credentials) {
	w.Helper()
	empty := filepath.Join(w.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		w.Fatal(err)
	}
	environment := append(w.cloud.Environ(), credentials.Environ()...)
	environment = append(environment, "AWS_CONFIG_FILE="+empty, "AWS_SHARED_CREDENTIALS_FILE="+empty, "AWS_EC2_METADATA_DISABLED=true", "AWS_REGION=", "AWS_PROFILE=")
	for _, v := range environment {
		name, value, _ := strings.Cut(v, "=")
		w.Setenv(name, value)
	}
}

// admin is the account's own client, for what happens behind sync's back.
func (w *fixture) admin() *iam.Client {
	return iam.NewFromConfig(w.cloud.Config(w.account.AdminCredentials(), region))
}

func (w *fixture) must(_ any, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// plan observes and compares, for the named service accounts of namespace
// monitoring.
func (w *fixture) plan(i *awsiam.IAM, names ...string) plan.Plan {
	w.Helper()
	var accounts []plan.ServiceAccount
	for _, name := range names {
		accounts = append(accounts, plan.ServiceAccount{Namespace: "monitoring", Name: name, Injection: policy.InjectionEnabled, Created: time.Now()})
	}
	observed := map[string]plan.Account{}
	for _, target := range plan.Targets(w.policy, w.issuer) {
		observed[target.Account] = i.Observe(w.ctx, target)
	}
	return plan.Compute(plan.Input{Policy: w.policy, Issuer: w.issuer, ServiceAccounts: accounts, Accounts: observed})
}

func (w *fixture) apply(i *awsiam.IAM, p plan.Plan) {
	w.Helper()
	if len(p.Refusals) > 0 {
		w.Fatalf("refused: %v", p.Refusals)
	}
	for _, c := range p.Changes {
		if err := i.Apply(w.ctx, c); err != nil {
			w.Fatalf("%s: %v", c.Title(), err)
		}
	}
}

// converge applies plans as a first run does, and checks that a second has
// nothing to do.
func (w *fixture) converge(names ...string) {
	w.Helper()
	i := awsiam.New(w.policy.Trust.Accounts)
	w.apply(i, w.plan(i, names...))
	if again := w.plan(i, names...); !again.InSync() {
		w.Fatalf("not in sync after a run:\n%s", again)
	}
}

// assume asks the double's STS for a session, with a token of the service account.
func (w *fixture) assume(name string) error {
	client := sts.NewFromConfig(aws.Config{Region: region, BaseEndpoint: &w.cloud.URL})
	_, err := client.AssumeRoleWithWebIdentity(w.ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn:          aws.String(w.policy.Role(w.policy.Destinations[0]).String()),
		RoleSessionName:  aws.String("test"),
		WebIdentityToken: aws.String(w.signer.Token("system:serviceaccount:monitoring:"+name, "sts.amazonaws.com")),
	})
	return err
}

// calls counts IAM's, from the n-th call on: reads and writes.
func (w *fixture) calls(n int) (reads, writes int) {
	for _, c := range w.cloud.Calls()[n:] {
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
