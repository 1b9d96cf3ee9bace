package awstest_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	region     = "eu-west-1"
	accountID  = "111122223333"
	eksIssuer  = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
	aksIssuer  = "https://eastus.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/66666666-7777-8888-9999-000000000000/"
	subject    = "system:serviceaccount:monitoring:prometheus-k8s"
	stsTokens  = "sts.amazonaws.com"
	writerRole = "ampbridge.dev.central"
	writerPath = "/ampbridge/dev/"
	// fetchedAnew is longer than STS keeps an issuer's keys.
	fetchedAnew = 15 * time.Second
)

// fixture is an account in which one subject of one cluster may write to one workspace.
type fixture struct {
	t         *testing.T
	cloud     *awstest.Cloud
	account   *awstest.Account
	workspace *awstest.Workspace
	signer    *awstest.Signer
	issuer    *awstest.Issuer
	iam       *iam.Client
	sts       *sts.Client // unsigned calls only
	roleARN   string
	provider  string // ARN
}

// newFixture makes everything by calls that any client can make.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureWith(t, awstest.Options{})
}

func newFixtureWith(t *testing.T, options awstest.Options) *fixture {
	t.Helper()
	cloud := awstest.Start(t, options)
	account := cloud.Account(accountID)
	f := &fixture{
		t: t, cloud: cloud, account: account, workspace: account.CreateWorkspace(region, "central"),
		signer: awstest.NewSigner(eksIssuer, jose.RS256), provider: account.ProviderARN(eksIssuer),
		iam: iam.NewFromConfig(cloud.Config(account.AdminCredentials(), region), noRetries[iam.Options]),
		sts: newSTS(cloud, nil),
	}
	f.issuer = register(t, cloud, f.signer, awstest.PublicCA)
	f.createProvider(eksIssuer, stsTokens)
	f.roleARN = f.createRole(writerRole, trust(f.provider, eksIssuer, subject))
	f.putRolePolicy(allowWrite(f.workspace.ARN))
	return f
}

func noRetries[O any](o *O) {
	switch o := any(o).(type) {
	case *iam.Options:
		o.RetryMaxAttempts = 1
	case *sts.Options:
		o.RetryMaxAttempts = 1
	}
}

// newSTS is a client that signs with the credentials, or sends unsigned calls only where there are none.
func newSTS(cloud *awstest.Cloud, creds aws.CredentialsProvider) *sts.Client {
	return sts.New(sts.Options{
		Region: region, BaseEndpoint: aws.String(cloud.URL), Credentials: creds, RetryMaxAttempts: 1,
	})
}

func register(t *testing.T, cloud *awstest.Cloud, signer *awstest.Signer, ca awstest.CA) *awstest.Issuer {
	t.Helper()
	issuer, err := cloud.RegisterIssuer(signer.Issuer, signer, ca)
	testkit.Must(t, err)
	return issuer
}

func (f *fixture) createProvider(issuer string, clientIDs ...string) {
	f.t.Helper()
	_, err := f.iam.CreateOpenIDConnectProvider(f.t.Context(), &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(issuer), ClientIDList: clientIDs,
	})
	testkit.Must(f.t, err)
}

func (f *fixture) createRole(name, trust string) string {
	f.t.Helper()
	out, err := f.iam.CreateRole(f.t.Context(), &iam.CreateRoleInput{
		RoleName: aws.String(name), Path: aws.String(writerPath), AssumeRolePolicyDocument: aws.String(trust),
	})
	testkit.Must(f.t, err)
	return *out.Role.Arn
}

func (f *fixture) putRolePolicy(policy string) {
	f.t.Helper()
	_, err := f.iam.PutRolePolicy(f.t.Context(), &iam.PutRolePolicyInput{
		RoleName: aws.String(writerRole), PolicyName: aws.String("remote-write"), PolicyDocument: aws.String(policy),
	})
	testkit.Must(f.t, err)
}

func (f *fixture) updateTrust(trust string) {
	f.t.Helper()
	_, err := f.iam.UpdateAssumeRolePolicy(f.t.Context(), &iam.UpdateAssumeRolePolicyInput{
		RoleName: aws.String(writerRole), PolicyDocument: aws.String(trust),
	})
	testkit.Must(f.t, err)
}

// assume asks STS for a session of the writer role.
func (f *fixture) assume(token string, change ...func(*sts.AssumeRoleWithWebIdentityInput)) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	in := &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(f.roleARN), RoleSessionName: aws.String("dev-monitoring-prometheus-0"), WebIdentityToken: aws.String(token),
	}
	for _, c := range change {
		c(in)
	}
	return f.sts.AssumeRoleWithWebIdentity(f.t.Context(), in)
}

// session is assume for tests that go on from there.
func (f *fixture) session() awstest.Credentials {
	f.t.Helper()
	out, err := f.assume(f.signer.Token(subject, stsTokens))
	testkit.Must(f.t, err)
	return awstest.Credentials{
		AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey,
		SessionToken: *out.Credentials.SessionToken,
	}
}

// trust lets the subjects of the issuer in.
func trust(provider, issuer string, subjects ...string) string {
	key := strings.TrimPrefix(issuer, "https://")
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"ampbridge","Effect":"Allow","Principal":{"Federated":%q},`+
		`"Action":"sts:AssumeRoleWithWebIdentity","Condition":{"StringEquals":{%q:%q,%q:["%s"]}}}]}`,
		provider, key+":aud", stsTokens, key+":sub", strings.Join(subjects, `","`))
}

func allowWrite(workspace string) string {
	return fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:RemoteWrite"],"Resource":[%q]}]}`, workspace)
}

// wantOutcome fails the test unless the call succeeded, or failed with the error if it should not succeed.
func wantOutcome(t *testing.T, err error, success bool, code, message string) {
	t.Helper()
	switch {
	case !success:
		wantError(t, err, code, message)
	case err != nil:
		t.Error(err)
	}
}

// wantError checks AWS's own code and message, and that they came with the status.
func wantError(t *testing.T, err error, code, message string) {
	t.Helper()
	var apiError smithy.APIError
	if !errors.As(err, &apiError) {
		t.Fatalf("error = %v, want %s", err, code)
	}
	if apiError.ErrorCode() != code || !strings.HasPrefix(apiError.ErrorMessage(), message) {
		t.Errorf("error = %s: %s\nwant %s: %s…", apiError.ErrorCode(), apiError.ErrorMessage(), code, message)
	}
}
