package awstest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

func (f *fixture) sign(r *http.Request, body []byte, creds awstest.Credentials, service, region string, at time.Time) {
	f.t.Helper()
	hash := sha256.Sum256(body)
	signed := aws.Credentials{AccessKeyID: creds.AccessKeyID, SecretAccessKey: creds.SecretAccessKey, SessionToken: creds.SessionToken}
	testkit.Must(f.t, v4.NewSigner().SignHTTP(background, signed, r, hex.EncodeToString(hash[:]), service, region, at))
}

// TestSignaturesOfQueryCalls is what IAM and STS say of requests that are not authentic.
func TestSignaturesOfQueryCalls(t *testing.T) {
	f := newFixture(t)
	admin, session := f.account.AdminCredentials(), f.session()
	forged, unknown := admin, admin
	forged.SecretAccessKey = strings.Repeat("A", 40)
	unknown.AccessKeyID = "AKIAIOSFODNN7EXAMPLE"
	const form = "Action=GetCallerIdentity&Version=2011-06-15"
	request := func(creds awstest.Credentials, service string, at time.Time, change func(*http.Request)) *http.Request {
		r := f.unsigned("POST", "/", []byte(form))
		r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
		f.sign(r, []byte(form), creds, service, region, at)
		if change != nil {
			change(r)
		}
		return r
	}
	now := time.Now()
	tests := []struct {
		name    string
		request *http.Request
		status  int
		code    string
	}{
		{"good", request(admin, "sts", now, nil), 200, ""},
		{"a session", request(session, "sts", now, nil), 200, ""},
		{
			"unsigned",
			request(admin, "sts", now, func(r *http.Request) { r.Header.Del("Authorization") }),
			403,
			"MissingAuthenticationToken",
		},
		{
			"another scheme",
			request(admin, "sts", now, func(r *http.Request) { r.Header.Set("Authorization", "Basic x") }),
			400,
			"IncompleteSignature",
		},
		{"unknown key", request(unknown, "sts", now, nil), 403, "InvalidClientTokenId"},
		{"another secret", request(forged, "sts", now, nil), 403, "SignatureDoesNotMatch"},
		{"another service", request(admin, "iam", now, nil), 403, "SignatureDoesNotMatch"},
		{"long ago", request(admin, "sts", now.Add(-6*time.Minute), nil), 403, "SignatureDoesNotMatch"},
		{"another host", request(admin, "sts", now, func(r *http.Request) { r.Host = "sts.amazonaws.com" }), 403, "SignatureDoesNotMatch"},
		{"another date", request(admin, "sts", now, func(r *http.Request) {
			r.Header.Set("X-Amz-Date", now.Add(time.Second).UTC().Format("20060102T150405Z"))
		}), 403, "SignatureDoesNotMatch"},
		{"a date that is not signed", request(admin, "sts", now, func(r *http.Request) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), ";x-amz-date", "", 1))
		}), 403, "SignatureDoesNotMatch"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			status, _, text := f.send(test.request)
			if status != test.status || !strings.Contains(text, test.code) {
				t.Errorf("%d %s, want %d %s", status, text, test.status, test.code)
			}
		})
	}
	f.cloud.Advance(2 * time.Hour)
	if status, _, text := f.send(
		request(session, "sts", time.Now(), nil),
	); status != 403 ||
		!strings.Contains(text, "<Code>ExpiredToken</Code>") {
		t.Errorf("expired session: %d %s", status, text)
	}
	if status, _, text := f.send(request(admin, "sts", time.Now(), nil)); status != 200 {
		t.Errorf("static keys after the clock was advanced: %d %s", status, text)
	}
}

// TestSignedPathsAndQueries is where canonical forms go wrong.
func TestSignedPathsAndQueries(t *testing.T) {
	f := newFixtureWith(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")})
	base := "/workspaces/" + f.workspace.ID + "/api/v1/"
	for _, path := range []string{
		"label/job/values",
		"label/U__a%20b/values",
		"query?query=a%2Bb",
		"query?query=up%7Bjob%3D%22a%20b%22%7D",
		"series?match[]=b&match[]=a",
		"query?time=1700000000&query=1",
		"labels?",
	} {
		if status, code, text := f.send(f.request("GET", base+path, nil, f.account.AdminCredentials(), nil)); status != 200 {
			t.Errorf("%s: %d %s %s", path, status, code, text)
		}
	}
}

// TestSessionPolicy is a session that asked for less than its role may do.
func TestSessionPolicy(t *testing.T) {
	f := newFixture(t)
	out, err := f.assume(f.signer.Token(subject, stsTokens), func(in *sts.AssumeRoleWithWebIdentityInput) {
		in.Policy = new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:QueryMetrics","Resource":"*"}}`)
	})
	testkit.Must(t, err)
	creds := awstest.Credentials{
		AccessKeyID:     *out.Credentials.AccessKeyId,
		SecretAccessKey: *out.Credentials.SecretAccessKey,
		SessionToken:    *out.Credentials.SessionToken,
	}
	status, code, text := f.send(f.request("POST", f.writePath(), writeRequest("a", 1, time.Now()), creds, nil))
	if status != 403 || code != "AccessDeniedException" ||
		!strings.Contains(text, "because no session policy allows the aps:RemoteWrite action") {
		t.Errorf("%d %s %s", status, code, text)
	}
}

func TestPartitions(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	account := cloud.AccountIn("aws-cn", accountID)
	workspace := account.CreateWorkspace("cn-north-1", "central")
	if want := "arn:aws-cn:aps:cn-north-1:111122223333:workspace/" + workspace.ID; workspace.ARN != want {
		t.Errorf("ARN = %s, want %s", workspace.ARN, want)
	}
	config := cloud.Config(account.AdminCredentials(), "cn-north-1")
	caller, err := sts.NewFromConfig(config).GetCallerIdentity(background, nil)
	testkit.Must(t, err)
	if want := "arn:aws-cn:iam::111122223333:user/administrator"; *caller.Arn != want {
		t.Errorf("caller = %s, want %s", *caller.Arn, want)
	}
}

func TestNewSaysWhyItFails(t *testing.T) {
	if _, err := awstest.New(background, awstest.Options{Listen: "192.0.2.1:1"}); err == nil {
		t.Error("New succeeds on an address that is not this machine's")
	}
}
