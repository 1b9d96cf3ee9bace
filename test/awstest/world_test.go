package awstest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
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

// world is an account in which one subject of one cluster may write to one workspace.
type world struct {
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

// newWorld builds the world with nothing but what clients can do.
func newWorld(t *testing.T, options awstest.Options) *world {
	t.Helper()
	cloud := awstest.Start(t, options)
	account := cloud.Account(accountID)
	w := &world{
		t: t, cloud: cloud, account: account, workspace: account.CreateWorkspace(region, "central"),
		signer: awstest.NewSigner(eksIssuer, jose.RS256), provider: account.ProviderARN(eksIssuer),
		iam: iam.NewFromConfig(cloud.Config(account.AdminCredentials(), region), noRetries[iam.Options]),
		sts: newSTS(cloud, nil),
	}
	w.issuer = register(t, cloud, w.signer, awstest.PublicCA)
	w.createProvider(eksIssuer, stsTokens)
	w.roleARN = w.createRole(writerRole, trust(w.provider, eksIssuer, subject))
	w.putRolePolicy(allowWrite(w.workspace.ARN))
	return w
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
	if err != nil {
		t.Fatal(err)
	}
	return issuer
}

func (w *world) createProvider(issuer string, clientIDs ...string) {
	w.t.Helper()
	_, err := w.iam.CreateOpenIDConnectProvider(context.Background(), &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(issuer), ClientIDList: clientIDs,
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) createRole(name, trust string) string {
	w.t.Helper()
	out, err := w.iam.CreateRole(context.Background(), &iam.CreateRoleInput{
		RoleName: aws.String(name), Path: aws.String(writerPath), AssumeRolePolicyDocument: aws.String(trust),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return *out.Role.Arn
}

func (w *world) putRolePolicy(policy string) {
	w.t.Helper()
	_, err := w.iam.PutRolePolicy(context.Background(), &iam.PutRolePolicyInput{
		RoleName: aws.String(writerRole), PolicyName: aws.String("remote-write"), PolicyDocument: aws.String(policy),
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) updateTrust(trust string) {
	w.t.Helper()
	_, err := w.iam.UpdateAssumeRolePolicy(context.Background(), &iam.UpdateAssumeRolePolicyInput{
		RoleName: aws.String(writerRole), PolicyDocument: aws.String(trust),
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// assume asks STS for a session of the writer role.
func (w *world) assume(token string, change ...func(*sts.AssumeRoleWithWebIdentityInput)) (*sts.AssumeRoleWithWebIdentityOutput, error) {
	in := &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(w.roleARN), RoleSessionName: aws.String("dev-monitoring-prometheus-0"), WebIdentityToken: aws.String(token),
	}
	for _, c := range change {
		c(in)
	}
	return w.sts.AssumeRoleWithWebIdentity(context.Background(), in)
}

// session is assume for tests that go on from there.
func (w *world) session() awstest.Credentials {
	w.t.Helper()
	out, err := w.assume(w.signer.Token(subject, stsTokens))
	if err != nil {
		w.t.Fatal(err)
	}
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

func freeAddress(t *testing.T) string {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := socket.Close(); err != nil {
		t.Fatal(err)
	}
	return socket.Addr().String()
}
