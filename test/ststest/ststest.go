// Package ststest gives the sidecar's tests an AWS double, an issuer that the double
// knows, a pod's token in a file, and roles that trust it.
package ststest

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The identity of the pod under test.
const (
	Issuer   = "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLED539D4633E53DE1B71EXAMPLE"
	Audience = "sts.amazonaws.com"
	Region   = "eu-west-1"
)

// Subject is whom the token names.
var Subject = policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"}

// STS is the double with the issuer registered.
type STS struct {
	*awstest.Cloud
	// Token is the file with the pod's token.
	Token  string
	signer *awstest.Signer
}

// New starts an STS, which ends with the test.
func New(tb testing.TB) *STS {
	tb.Helper()
	return Start(tb, awstest.Options{})
}

// Start is [New] with a double of that kind.
func Start(tb testing.TB, options awstest.Options) *STS {
	tb.Helper()
	s := &STS{
		Cloud:  awstest.Start(tb, options),
		Token:  filepath.Join(tb.TempDir(), "token"),
		signer: awstest.NewSigner(Issuer, jose.RS256),
	}
	_, err := s.RegisterIssuer(Issuer, s.signer, awstest.PublicCA)
	testkit.Must(tb, err)
	s.WriteToken(tb, s.signer.Token(Subject.String(), Audience))
	return s
}

// WriteToken replaces the pod's token.
func (s *STS) WriteToken(tb testing.TB, token string) {
	tb.Helper()
	testkit.WriteFile(tb, s.Token, token)
}

// ExpiredToken is the pod's token as it was two hours ago.
func (s *STS) ExpiredToken() string {
	claims := s.signer.Claims(Subject.String(), Audience)
	for _, name := range []string{"iat", "nbf", "exp"} {
		if _, ok := claims[name]; ok {
			claims[name] = time.Now().Add(-2 * time.Hour).Unix()
		}
	}
	return s.signer.Sign(claims)
}

// Role creates a role that trusts the pod, and allows sessions of that many
// seconds and may assume whatever trusts it. It returns the role's ARN.
func (s *STS) Role(tb testing.TB, account, name string, longest int32) string {
	tb.Helper()
	client := s.iam(account)
	provider := policy.Issuer(Issuer).ProviderARN("aws", account)
	_, err := client.CreateOpenIDConnectProvider(tb.Context(), &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(Issuer), ClientIDList: []string{Audience},
	})
	if err != nil && !strings.Contains(err.Error(), "EntityAlreadyExists") {
		tb.Fatal(err)
	}
	trust := policy.TrustDocument(provider, Issuer, Audience, []policy.Subject{Subject}).String()
	arn := s.create(tb, client, name, trust, longest)
	s.allow(tb, client, name, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"*"}]}`)
	return arn
}

// ChainedRole creates a role that trusts another role.
func (s *STS) ChainedRole(tb testing.TB, account, name, trusted string) string {
	tb.Helper()
	trust := fmt.Sprintf(
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":%q},"Action":"sts:AssumeRole"}]}`,
		trusted,
	)
	return s.create(tb, s.iam(account), name, trust, 43200)
}

// RoleWithExternalID creates a role that trusts another role, if that shows the ID.
func (s *STS) RoleWithExternalID(tb testing.TB, account, name, trusted, id string) string {
	tb.Helper()
	trust := fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":%q},"Action":"sts:AssumeRole",`+
		`"Condition":{"StringEquals":{"sts:ExternalId":%q}}}]}`, trusted, id)
	return s.create(tb, s.iam(account), name, trust, 43200)
}

// Assumed counts the calls of that STS action.
func (s *STS) Assumed(action string) (n int) {
	for _, call := range s.Calls() {
		if call.Service == "sts" && call.Action == action {
			n++
		}
	}
	return n
}

func (s *STS) iam(account string) *iam.Client {
	return iam.NewFromConfig(s.Config(s.Account(account).AdminCredentials(), Region))
}

func (s *STS) create(tb testing.TB, client *iam.Client, name, trust string, longest int32) string {
	tb.Helper()
	out, err := client.CreateRole(tb.Context(), &iam.CreateRoleInput{
		RoleName: &name, Path: aws.String("/ampbridge/"), AssumeRolePolicyDocument: &trust,
		MaxSessionDuration: &longest,
	})
	testkit.Must(tb, err)
	return *out.Role.Arn
}

func (s *STS) allow(tb testing.TB, client *iam.Client, name, document string) {
	tb.Helper()
	_, err := client.PutRolePolicy(tb.Context(), &iam.PutRolePolicyInput{
		RoleName: &name, PolicyName: aws.String("write"), PolicyDocument: &document,
	})
	testkit.Must(tb, err)
}
