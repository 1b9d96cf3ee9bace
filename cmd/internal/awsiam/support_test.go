package awsiam_test

import (
	"context"
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
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	accountID = "111122223333"
	region    = "eu-west-1"
	issuer    = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
	roleName  = "ampbridge.dev.central"
	boundary  = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}}`
)

var policyText = policytest.Granting("prometheus*", "monitoring")

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
		T: t, ctx: t.Context(), policy: policytest.Parse(t, text),
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
	f.cloud.Setenv(f, f.account.AdminCredentials())
	return f
}

// admin is the account's own client, for what happens behind sync's back.
func (f *fixture) admin() *iam.Client {
	return iam.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
}

// converged is a fixture after a run of sync for one granted service account.
func converged(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t, policyText)
	f.converge("prometheus")
	return f
}

// makeSyncRole creates the role sync, which accountID may assume and which may do everything in IAM.
func (f *fixture) makeSyncRole() {
	f.Helper()
	f.must(f.admin().CreateRole(f.ctx, &iam.CreateRoleInput{RoleName: aws.String("sync"), AssumeRolePolicyDocument: aws.String(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::` + accountID +
			`:root"},"Action":"sts:AssumeRole"}]}`)}))
	f.must(f.admin().PutRolePolicy(f.ctx, &iam.PutRolePolicyInput{RoleName: aws.String("sync"), PolicyName: aws.String("all"),
		PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"iam:*","Resource":"*"}}`)}))
}

// makeAdmins creates a role on the cluster's path that is not the cluster's.
func (f *fixture) makeAdmins() {
	f.Helper()
	f.must(f.admin().CreateRole(f.ctx, &iam.CreateRoleInput{
		RoleName: aws.String("admins"),
		Path:     aws.String(policy.RolePath("dev")),
		AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`,
		),
	}))
}

func (f *fixture) must(_ any, err error) {
	f.Helper()
	testkit.Must(f, err)
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

// wantAssume fails the test unless STS gives the service account a session, or refuses it if it may not.
func (f *fixture) wantAssume(name string, may bool) {
	f.Helper()
	if err := f.assume(name); (err == nil) != may {
		f.Errorf("the service account %s may assume the role: %t; STS: %v", name, may, err)
	}
}

// calls counts IAM's, from the n-th call on: reads and writes.
func (f *fixture) calls(n int) (reads, writes int) { return awstest.CountIAM(f.cloud.Calls()[n:]) }
