// Package tokens_test sends real Kubernetes tokens to AWS's double, and correctly and wrongly signed samples
// to a workspace. What sync has created must allow exactly what the policy grants.
package tokens_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/remotewrite"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestTokens is a matrix: one correct token, and all almost correct ones with AWS's error code and message.
// It runs with an EKS issuer and with an AKS issuer, in which the trailing slash matters.
func TestTokens(t *testing.T) {
	for platform, issuer := range map[string]string{
		"EKS": cluster.DefaultIssuer,
		"AKS": "https://westeurope.oic.prod-aks.azure.com/0a0a0a0a-1111-2222-3333-444455556666/7b7b7b7b-1111-2222-3333-444455556666/",
	} {
		t.Run(platform, func(t *testing.T) {
			e := env.StartSynced(t, env.Options{Issuer: issuer})
			matrix(t, e)
		})
	}
}

func matrix(t *testing.T, e *env.Env) {
	ctx := t.Context()
	testkit.Must(t, e.CreateServiceAccount(ctx, env.Namespace, "grafana"))
	testkit.Must(t, e.Cluster.Namespace(ctx, "monitoring-2", map[string]string{"ampbridge.io/injection": "enabled"}))
	testkit.Must(t, e.CreateServiceAccount(ctx, "monitoring-2", env.ServiceAccount))
	token := func(namespace, serviceAccount, audience string) string {
		t.Helper()
		token, err := e.Cluster.Token(ctx, namespace, serviceAccount, audience, 3600)
		testkit.Must(t, err)
		return token
	}
	subject := "system:serviceaccount:" + env.Namespace + ":" + env.ServiceAccount
	// An issuer that is reachable, but that no provider names.
	stranger := awstest.NewSigner("https://oidc.eks.eu-west-1.amazonaws.com/id/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF", jose.RS256)
	_, err := e.Cloud.RegisterIssuer(stranger.Issuer, stranger, awstest.PublicCA)
	testkit.Must(t, err)
	// The token has the right issuer, but another key.
	forger := awstest.NewSigner(e.Cluster.Issuer, jose.RS256)
	slashed := awstest.NewSigner(toggleSlash(e.Cluster.Issuer), jose.RS256)

	right := token(env.Namespace, env.ServiceAccount, env.Audience)
	for _, row := range []struct{ name, token, code, message string }{
		{"right", right, "", ""},
		{"wrong audience", token(env.Namespace, env.ServiceAccount, "api://AzureADTokenExchange"), "InvalidIdentityToken",
			"Incorrect token audience"},
		{"wrong subject", token(env.Namespace, "grafana", env.Audience), "AccessDenied",
			"Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		{"other namespace", token("monitoring-2", env.ServiceAccount, env.Audience), "AccessDenied",
			"Not authorized to perform sts:AssumeRoleWithWebIdentity"},
		{"unknown issuer", stranger.Token(subject, env.Audience), "InvalidIdentityToken",
			"No OpenIDConnect provider found in your account for " + stranger.Issuer},
		{"the issuer's slash", slashed.Token(subject, env.Audience), "InvalidIdentityToken",
			"No OpenIDConnect provider found in your account for " + slashed.Issuer},
		{"foreign signature", forger.Token(subject, env.Audience), "InvalidIdentityToken",
			"Couldn't retrieve verification key from your identity provider"},
		{"no token at all", "none", "InvalidIdentityToken", ""},
	} {
		_, err := e.Cloud.AssumeWithToken(ctx, env.RoleARN, row.token)
		expect(t, row.name, err, row.code, row.message)
	}
	session, err := e.Cloud.AssumeWithToken(ctx, env.RoleARN, right)
	testkit.Must(t, err)
	writes(ctx, t, e, session)

	// This is last, because the double's clock cannot go back.
	e.Cloud.Advance(2 * time.Hour)
	_, err = e.Cloud.AssumeWithToken(ctx, env.RoleARN, right)
	expect(t, "expired", err, "ExpiredTokenException", "Token expired: current date/time")
	before := stored(ctx, t, e, e.Workspace)
	if status, body := write(ctx, t, e, e.Workspace, &session, "e2e_expired"); status != http.StatusForbidden {
		t.Errorf("an expired session: status %d, want 403: %s", status, body)
	}
	if after := stored(ctx, t, e, e.Workspace); after != before {
		t.Errorf("an expired session stored %d series", after-before)
	}
}

func toggleSlash(issuer string) string {
	if without, found := strings.CutSuffix(issuer, "/"); found {
		return without
	}
	return issuer + "/"
}

func expect(t *testing.T, name string, err error, code, message string) {
	t.Helper()
	var answer smithy.APIError
	switch {
	case code == "" && err == nil:
	case !errors.As(err, &answer):
		t.Errorf("%s: %v, want %q", name, err, code)
	case answer.ErrorCode() != code || !strings.Contains(answer.ErrorMessage(), message):
		t.Errorf("%s: %s %q, want %s %q", name, answer.ErrorCode(), answer.ErrorMessage(), code, message)
	}
}

// writes sends one sample in every way that must fail, and then in the way that must work.
func writes(ctx context.Context, t *testing.T, e *env.Env, valid awstest.Credentials) {
	forged, tokenless := valid, valid
	forged.SecretAccessKey = strings.Repeat("x", 40)
	tokenless.SessionToken = ""
	elsewhere := e.Account.CreateWorkspace(env.Region, "elsewhere")
	for _, row := range []struct {
		name        string
		credentials *awstest.Credentials
		workspace   *awstest.Workspace
	}{
		{"unsigned", nil, e.Workspace},
		{"signed with another secret", &forged, e.Workspace},
		{"without the session token", &tokenless, e.Workspace},
		{"keys that were never issued", &awstest.Credentials{AccessKeyID: "ASIAXXXXXXXXXXXXXXXX", SecretAccessKey: "x", SessionToken: "y"},
			e.Workspace},
		{"for another workspace", &valid, elsewhere},
	} {
		if status, body := write(ctx, t, e, row.workspace, row.credentials, "e2e_refused"); status != http.StatusForbidden {
			t.Errorf("%s: status %d, want 403: %s", row.name, status, body)
		}
	}
	if n := stored(ctx, t, e, e.Workspace) + stored(ctx, t, e, elsewhere); n != 0 {
		t.Errorf("%d series stored by writes that were refused", n)
	}
	if status, body := write(ctx, t, e, e.Workspace, &valid, "e2e_right"); status/100 != 2 {
		t.Errorf("a correct write: status %d: %s", status, body)
	}
	if n := stored(ctx, t, e, e.Workspace); n != 1 {
		t.Errorf("%d series stored by a correct write, want 1", n)
	}
}

// stored returns how many series of this test are in a workspace.
func stored(ctx context.Context, t *testing.T, e *env.Env, w *awstest.Workspace) int {
	t.Helper()
	samples, err := e.Cloud.Query(ctx, w.ID, `count_over_time({__name__=~"e2e_.+"}[1h])`)
	testkit.Must(t, err)
	return len(samples)
}

// write sends one sample of a metric, signed as Prometheus signs.
func write(
	ctx context.Context,
	t *testing.T,
	e *env.Env,
	w *awstest.Workspace,
	credentials *awstest.Credentials,
	metric string,
) (int, string) {
	t.Helper()
	body := remotewrite.Sample(metric, 1, time.Now())
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.RemoteWriteURL(e.Cloud.URL), bytes.NewReader(body))
	testkit.Must(t, err)
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	if credentials != nil {
		testkit.Must(t, credentials.SignAMP(request, body, env.Region, e.Cloud.Now()))
	}
	response, err := http.DefaultClient.Do(request)
	testkit.Must(t, err)
	return response.StatusCode, testkit.ReadBody(t, response)
}
