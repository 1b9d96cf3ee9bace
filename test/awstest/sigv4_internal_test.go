package awstest

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// TestHeadersThatMustBeSigned is a signature that is right for the headers it names, and names few. Clients differ
// in the session token: AWS's SDKs sign it, vmagent does not.
func TestHeadersThatMustBeSigned(t *testing.T) {
	cloud := Start(t, Options{})
	account := cloud.Account("111122223333")
	admin := account.AdminCredentials()
	session := Credentials{"ASIAIOSFODNN7EXAMPLE", admin.SecretAccessKey, "a/session+token=="}
	cloud.mu.Lock()
	asSession := *cloud.credentials[admin.AccessKeyID]
	asSession.Credentials = session
	cloud.credentials[session.AccessKeyID] = &asSession
	cloud.mu.Unlock()
	const token = "x-amz-security-token"
	for _, test := range []struct {
		service string
		keys    Credentials
		token   string
		headers []string
		want    bool
	}{
		{"aps", admin, "", []string{"host", "x-amz-date"}, true},
		{"aps", admin, "", []string{"host"}, false},
		{"aps", admin, "", []string{"x-amz-date"}, false},
		{"aps", session, session.SessionToken, []string{"host", "x-amz-date", token}, true},
		{"aps", session, session.SessionToken, []string{"host", "x-amz-date"}, true},
		{"aps", session, "another", []string{"host", "x-amz-date"}, false},
		{"aps", session, "", []string{"host", "x-amz-date"}, false},
		{"aps", admin, session.SessionToken, []string{"host", "x-amz-date"}, false},
		{"aps", session, session.SessionToken, []string{"host", token}, false},
		{"sts", session, session.SessionToken, []string{"host", "x-amz-date"}, true},
		{"iam", session, session.SessionToken, []string{"host", "x-amz-date"}, true},
		{"s3", session, session.SessionToken, []string{"host", "x-amz-content-sha256", "x-amz-date", token}, true},
		{"s3", session, session.SessionToken, []string{"host", "x-amz-content-sha256", "x-amz-date"}, false},
		{"s3", session, session.SessionToken, []string{"host", "x-amz-date", token}, false},
	} {
		now := time.Now().UTC()
		r := httptest.NewRequest(http.MethodGet, "/workspaces", nil)
		r.Header.Set("X-Amz-Date", now.Format(signingTime))
		if test.token != "" {
			r.Header.Set("X-Amz-Security-Token", test.token)
		}
		if test.service == "s3" {
			r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sha256Sum(nil)))
		}
		s := signature{date: now.Format("20060102"), region: "eu-west-1", service: test.service, headers: test.headers}
		list := strings.Join(test.headers, ";")
		r.Header.Set("Authorization", fmt.Sprintf("%s Credential=%s/%s/eu-west-1/%s/aws4_request, SignedHeaders=%s, Signature=%s",
			signingAlgorithm, test.keys.AccessKeyID, s.date, test.service, list, s.sign(r, nil, test.keys.SecretAccessKey)))
		caller, _, _, message := cloud.authenticate(r, nil, test.service)
		if (caller != nil) != test.want {
			t.Errorf("%s, signed %s, token %q: accepted %v (%s), want %v",
				test.service, list, test.token, caller != nil, message, test.want)
		}
	}
}

// TestAWSTestSuite has the signatures that AWS published for requests with and without a session token.
func TestAWSTestSuite(t *testing.T) {
	const token = "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflf" +
		"KD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6" +
		"fE8YQcHNVXAkiY9q6d" +
		"+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA=="
	const secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
	for name, test := range map[string]struct{ token, headers, want string }{
		"post-vanilla":          {"", "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		"post-sts-header-after": {token, "host;x-amz-date", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		"post-sts-header-before": {token, "host;x-amz-date;x-amz-security-token",
			"85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"},
	} {
		r := httptest.NewRequest(http.MethodPost, "https://example.amazonaws.com/", nil)
		r.Header.Set("X-Amz-Date", "20150830T123600Z")
		if test.token != "" {
			r.Header.Set("X-Amz-Security-Token", test.token)
		}
		s, ok := parseSignature(signingAlgorithm + " Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, " +
			"SignedHeaders=" + test.headers + ", Signature=" + test.want)
		if !ok {
			t.Fatalf("%s: the header is not understood", name)
		}
		if got := s.sign(r, nil, secret); got != test.want {
			t.Errorf("%s: signature %s, want %s", name, got, test.want)
		}
		if !s.coversWhatItMust(r) {
			t.Errorf("%s: too few headers are signed", name)
		}
	}
}
