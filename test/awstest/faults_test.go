package awstest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestFaults(t *testing.T) {
	f := newFixture(t)
	assume := func() error {
		_, err := f.assume(f.signer.Token(subject, stsTokens))
		return err
	}
	getRole := func() error {
		_, err := f.iam.GetRole(background, &iam.GetRoleInput{RoleName: aws.String(writerRole)})
		return err
	}
	tests := []struct {
		name          string
		target        string
		fault         awstest.Fault
		call          func() error
		code, message string
	}{
		{"STS denies", "sts:AssumeRoleWithWebIdentity", awstest.Deny, assume, "AccessDenied", notAuthorized},
		{"STS throttles", "sts:*", awstest.Throttle, assume, "Throttling", "Rate exceeded"},
		{"STS fails", "*", awstest.ServerError, assume, "InternalFailure", ""},
		{
			"an issuer is slow",
			"sts:*",
			awstest.Respond(400, "IDPCommunicationError", "An error occurred"),
			assume,
			"IDPCommunicationError",
			"An error occurred",
		},
		{"a claim is rejected", "sts:*", awstest.Respond(403, "IDPRejectedClaim", "Rejected"), assume, "IDPRejectedClaim", "Rejected"},
		{"IAM denies", "iam:GetRole", awstest.Deny, getRole, "AccessDenied", ""},
		{"IAM throttles", "iam:Get*", awstest.Throttle, getRole, "Throttling", "Rate exceeded"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			fault := f.cloud.Fail(test.target, test.fault)
			wantError(t, test.call(), test.code, test.message)
			fault.Stop()
			if err := test.call(); err != nil {
				t.Errorf("after the fault: %v", err)
			}
			if fault.Hits() != 1 {
				t.Errorf("hits = %d, want 1", fault.Hits())
			}
		})
	}
}

func TestFaultsOfAMP(t *testing.T) {
	f := newFixture(t)
	creds, body := f.session(), writeRequest("a", 1, time.Now())
	for _, test := range []struct {
		fault  awstest.Fault
		status int
	}{{awstest.Deny, 403}, {awstest.Throttle, 429}, {awstest.ServerError, 500}, {awstest.Respond(503, "ServiceUnavailable", ""), 503}} {
		fault := f.account.Fail("aps:RemoteWrite", test.fault)
		if status, code, _ := f.send(f.request("POST", f.writePath(), body, creds, nil)); status != test.status {
			t.Errorf("status = %d %s, want %d", status, code, test.status)
		}
		fault.Stop()
	}
}

func TestFaultOfOneAccountOnly(t *testing.T) {
	f := newFixture(t)
	fault := f.cloud.Account("999900001111").Fail("*", awstest.Deny)
	f.session()
	if fault.Hits() != 0 {
		t.Error("the fault struck another account")
	}
}

func TestFaultForSomeCalls(t *testing.T) {
	f := newFixture(t)
	f.cloud.Fail("sts:*", awstest.ServerError.Times(2))
	for range 2 {
		_, err := f.assume(f.signer.Token(subject, stsTokens))
		wantError(t, err, "InternalFailure", "")
	}
	f.session()
}

func TestRefusedConnections(t *testing.T) {
	f := newFixture(t)
	token := f.signer.Token(subject, stsTokens)

	fault := f.cloud.Fail("sts:*", awstest.Refuse)
	if _, err := f.assume(token); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refuse: error = %v, want a reset connection", err)
	}
	fault.Stop()
	f.session()

	f.cloud.StopListening()
	if _, err := f.assume(token); err == nil {
		t.Error("not listening: a call got an answer")
	}
	for _, endpoint := range []string{f.cloud.URL, f.cloud.TLSURL} {
		_, address, _ := strings.Cut(endpoint, "//")
		if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("not listening: error = %v, want a refused connection", err)
		}
	}
	testkit.Must(t, f.cloud.StartListening())
	f.session()
}

func TestHang(t *testing.T) {
	f := newFixture(t)
	fault := f.cloud.Fail("sts:*", awstest.Hang)
	ended := make(chan error, 1)
	go func() {
		_, err := f.assume(f.signer.Token(subject, stsTokens))
		ended <- err
	}()
	testkit.Eventually(t, "the call arrives", func() bool { return fault.Hits() > 0 })
	select {
	case err := <-ended:
		t.Fatalf("the call ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	fault.Stop()
	if err := <-ended; err == nil {
		t.Error("a call that hung got an answer")
	}
}

func TestSlow(t *testing.T) {
	f := newFixture(t)
	f.cloud.Fail("sts:*", awstest.Slow(200*time.Millisecond))
	began := time.Now()
	f.session()
	if took := time.Since(began); took < 200*time.Millisecond {
		t.Errorf("took %s", took)
	}
}

// TestLostAnswer is a client that cannot know that its role exists.
func TestLostAnswer(t *testing.T) {
	f := newFixture(t)
	fault := f.cloud.Fail("iam:CreateRole", awstest.Lose)
	in := &iam.CreateRoleInput{RoleName: aws.String("lost"), AssumeRolePolicyDocument: aws.String(trust(f.provider, eksIssuer, subject))}
	if _, err := f.iam.CreateRole(background, in); err == nil {
		t.Fatal("the answer arrived")
	}
	fault.Stop()
	_, err := f.iam.CreateRole(background, in)
	wantError(t, err, "EntityAlreadyExists", "Role with name lost already exists.")
}

// TestTLS asks for STS by its real name, as clients do that know no endpoint override.
func TestTLS(t *testing.T) {
	f := newFixture(t)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(f.cloud.CA) {
		t.Fatal("CA is not PEM")
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "sts.eu-west-1.amazonaws.com:443" || address == "sts.amazonaws.com:443" {
				address = f.cloud.TLSURL[len("https://"):]
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
	for _, endpoint := range []string{"https://sts.eu-west-1.amazonaws.com", "https://sts.amazonaws.com", f.cloud.TLSURL} {
		config := f.cloud.Config(f.account.AdminCredentials(), region)
		config.BaseEndpoint, config.HTTPClient = aws.String(endpoint), client
		if _, err := iam.NewFromConfig(config).ListRoles(background, nil); err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}
