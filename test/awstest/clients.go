package awstest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Config returns an SDK configuration that sends calls, signed with creds, to the
// double.
func (c *Cloud) Config(creds Credentials, region string) aws.Config {
	return aws.Config{Region: region, Credentials: creds, BaseEndpoint: new(c.URL)}
}

// Environ returns the environment ("NAME=value") that makes the SDKs of another
// process use the double.
func (c *Cloud) Environ() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + c.URL,
		"AWS_ENDPOINT_URL_IAM=" + c.URL,
		"AWS_ENDPOINT_URL_STS=" + c.URL,
		"AWS_ENDPOINT_URL_AMP=" + c.URL,
		"AWS_ENDPOINT_URL_S3=" + c.URL,
	}
}

// Setenv sets the variables of the test's own process so that an AWS SDK finds these
// credentials, and none of the machine's.
func (c *Cloud) Setenv(t testing.TB, credentials Credentials) {
	t.Helper()
	empty := testkit.TempFile(t, "empty", "")
	nothing := []string{
		"AWS_CONFIG_FILE=" + empty, "AWS_SHARED_CREDENTIALS_FILE=" + empty, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_PROFILE=", "AWS_SESSION_TOKEN=", "AWS_CA_BUNDLE=",
		"AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_ROLE_ARN=",
	}
	for _, v := range slices.Concat(nothing, c.Environ(), credentials.Environ()) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// IAM returns a client that acts with the account's [Account.AdminCredentials].
func (a *Account) IAM() *iam.Client {
	return iam.NewFromConfig(a.cloud.Config(a.admin, globalRegions[a.Partition]))
}

// AssumeWithToken exchanges a service account's token for a session of a role
// (AssumeRoleWithWebIdentity). An error is AWS's answer to a single call.
func (c *Cloud) AssumeWithToken(ctx context.Context, role, token string) (Credentials, error) {
	client := sts.New(sts.Options{
		Region: globalRegions["aws"], BaseEndpoint: &c.URL, Retryer: aws.NopRetryer{},
		HTTPClient: http.DefaultClient, // a client of its own would leave an open connection behind
	})
	out, err := client.AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: &role, RoleSessionName: new("test"), WebIdentityToken: &token,
	})
	if err != nil {
		return Credentials{}, err
	}
	return Credentials{
		AccessKeyID:     *out.Credentials.AccessKeyId,
		SecretAccessKey: *out.Credentials.SecretAccessKey,
		SessionToken:    *out.Credentials.SessionToken,
	}, nil
}

// SignAMP signs a request to AMP in a region, as Prometheus does.
func (c Credentials) SignAMP(r *http.Request, body []byte, region string, at time.Time) error {
	keys := aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken}
	sum := sha256.Sum256(body)
	return v4.NewSigner().SignHTTP(r.Context(), keys, r, hex.EncodeToString(sum[:]), "aps", region, at)
}
