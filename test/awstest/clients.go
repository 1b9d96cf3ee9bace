package awstest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

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
