package session_test

import (
	"context"
	"encoding/pem"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

const account = "111122223333"

// client returns a client for the role. change can set other options, such as a second role.
func client(t *testing.T, w *ststest.STS, role string, change func(*session.Options)) *session.Client {
	t.Helper()
	o := session.Options{
		Token: w.Token, Name: session.Name("dev", "monitoring", "prometheus-0"), Seconds: 6 * 3600, Endpoint: w.URL,
		Region: ststest.Region, Role: role,
	}
	if change != nil {
		change(&o)
	}
	c, err := session.NewClient(o)
	testkit.Must(t, err)
	return c
}

// assume makes a client assume a second role.
func assume(role string) func(*session.Options) {
	return func(o *session.Options) { o.AssumeRole = role }
}

func checkLife(t *testing.T, s session.Session, want time.Duration) {
	t.Helper()
	if life := s.Life(); life > want || life < want-10*time.Second {
		t.Errorf("the session lasts %v, want %v", life, want)
	}
	if s.AccessKeyID == "" || s.SecretAccessKey == "" || s.SessionToken == "" {
		t.Error("the session lacks keys")
	}
}

func TestObtain(t *testing.T) {
	w := ststest.New(t)
	role := w.Role(t, account, "writer", 43200)
	s, err := client(t, w, role, nil).Obtain(context.Background())
	testkit.Must(t, err)
	checkLife(t, s, 6*time.Hour)
	if calls := w.Calls(); !strings.HasSuffix(calls[len(calls)-1].Principal, "/dev-monitoring-prometheus-0") {
		t.Errorf("the session is named %s", calls[len(calls)-1].Principal)
	}
}

// TestObtainBeyondTheRole: the role allows only an hour, and the client learns that once.
func TestObtainBeyondTheRole(t *testing.T) {
	w := ststest.New(t)
	role := w.Role(t, account, "short", 3600)
	c := client(t, w, role, nil)
	for range 3 {
		s, err := c.Obtain(context.Background())
		testkit.Must(t, err)
		checkLife(t, s, time.Hour)
	}
	if n := w.Assumed("AssumeRoleWithWebIdentity"); n != 4 {
		t.Errorf("%d calls for three sessions, want 4", n)
	}
}

func TestObtainChained(t *testing.T) {
	w := ststest.New(t)
	first := w.Role(t, account, "first", 43200)
	second := w.ChainedRole(t, "444455556666", "second", first)
	s, err := client(t, w, first, assume(second)).Obtain(context.Background())
	testkit.Must(t, err)
	checkLife(t, s, time.Hour)
	stranger := w.ChainedRole(t, "444455556666", "stranger", w.Role(t, account, "other", 3600))
	_, err = client(t, w, first, assume(stranger)).Obtain(context.Background())
	if err == nil || !strings.HasPrefix(err.Error(), "assumeRole: AccessDenied: User: ") {
		t.Errorf("error %v, want AccessDenied of assumeRole", err)
	}
}

// TestExternalID: the second role requires an external ID, and the first role is assumed without
// one.
func TestExternalID(t *testing.T) {
	w := ststest.New(t)
	first := w.Role(t, account, "first", 3600)
	second := w.RoleWithExternalID(t, "444455556666", "second", first, "team-a/7")
	for id, admitted := range map[string]bool{"team-a/7": true, "team-b/7": false, "": false} {
		_, err := client(t, w, first, func(o *session.Options) { o.AssumeRole, o.ExternalID = second, id }).Obtain(context.Background())
		if admitted && err != nil || !admitted && (err == nil || !strings.HasPrefix(err.Error(), "assumeRole: AccessDenied: ")) {
			t.Errorf("with external ID %q: %v", id, err)
		}
	}
}

// TestOptionsFor: a destination can have its own settings for STS. Otherwise it has the pod's.
func TestOptionsFor(t *testing.T) {
	c := sidecarconfig.Config{
		Cluster: "dev", Token: "/token", SessionSeconds: 3600,
		STS: sidecarconfig.STS{Endpoint: "https://sts.example", ProxyURL: "http://proxy:1"},
	}
	d := sidecarconfig.Destination{Role: "first", AssumeRole: "second", ExternalID: "7", Region: ststest.Region}
	want := session.Options{
		Token: "/token", Name: "dev-monitoring-p-0", Seconds: 3600, Endpoint: "https://sts.example", ProxyURL: "http://proxy:1",
		Region: ststest.Region, Role: "first", AssumeRole: "second", ExternalID: "7",
	}
	if got := session.OptionsFor(c, d, "monitoring", "p-0"); got != want {
		t.Errorf("%+v", got)
	}
	d.STS = &sidecarconfig.STS{Endpoint: "https://other.example", CABundle: "PEM"}
	want.Endpoint, want.ProxyURL, want.CABundle = "https://other.example", "", "PEM"
	if got := session.OptionsFor(c, d, "monitoring", "p-0"); got != want {
		t.Errorf("with its own: %+v", got)
	}
}

// TestObtainReadsTheTokenAgain: the kubelet replaces it.
func TestObtainReadsTheTokenAgain(t *testing.T) {
	w := ststest.New(t)
	role := w.Role(t, account, "writer", 3600)
	c := client(t, w, role, nil)
	if _, err := c.Obtain(context.Background()); err != nil {
		t.Fatal(err)
	}
	w.WriteToken(t, w.ExpiredToken())
	if _, err := c.Obtain(context.Background()); err == nil {
		t.Error("an expired token gives a session")
	}
}

// TestErrors: the same error has the same text each time, without ports, request ids or tokens.
func TestErrors(t *testing.T) {
	w := ststest.New(t)
	role := w.Role(t, account, "writer", 3600)
	with := func(change func(*session.Options)) func(*testing.T) *session.Client {
		return func(t *testing.T) *session.Client { return client(t, w, role, change) }
	}
	failing := func(fault awstest.Fault) func(*testing.T) *session.Client {
		return func(t *testing.T) *session.Client {
			t.Cleanup(w.Fail("sts:*", fault).Stop)
			return client(t, w, role, nil)
		}
	}
	for name, tc := range map[string]struct {
		client func(t *testing.T) *session.Client
		want   string
	}{
		"denied":       {failing(awstest.Deny), "^AccessDenied: "},
		"throttled":    {failing(awstest.Throttle), "^Throttling: Rate exceeded$"},
		"server error": {failing(awstest.ServerError), "^(Internal|STS answered with HTTP status 500)"},
		"reset":        {failing(awstest.Refuse), "^STS cannot be reached: "},
		"hanging":      {failing(awstest.Hang), "^STS did not answer within 5s$"},
		"refused": {with(func(o *session.Options) { o.Endpoint = "http://" + closedPort(t) }), "^STS cannot be reached: connect: " +
			"connection refused$"},
		"unknown host": {with(func(o *session.Options) { o.Endpoint = "http://sts.invalid." }), "^STS cannot be reached: .*sts.invalid"},
		"not STS": {func(t *testing.T) *session.Client {
			server := httptest.NewServer(http.NotFoundHandler())
			t.Cleanup(server.Close)
			return client(t, w, role, func(o *session.Options) { o.Endpoint = server.URL })
		}, "^STS answered with HTTP status 404$"},
		"unknown CA": {with(func(o *session.Options) { o.Endpoint = w.TLSURL }), "^STS cannot be trusted: x509: certificate signed " +
			"by unknown authority"},
		"expired token": {with(func(o *session.Options) { o.Token = testkit.TempFile(t, "file", w.ExpiredToken()) }),
			"^ExpiredTokenException: the service account token has expired: "},
		"garbage token": {with(func(o *session.Options) { o.Token = testkit.TempFile(t, "file", "gar.ba.ge") }), "^InvalidIdentityToken: "},
		"empty token":   {with(func(o *session.Options) { o.Token = testkit.TempFile(t, "file", "\n") }), "token .* is empty$"},
		"no token": {with(func(o *session.Options) { o.Token = "/nonexistent/token" }), "^the service account token cannot be " +
			"read: open /nonexistent/token: no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			c := tc.client(t)
			_, first := c.Obtain(context.Background())
			if first == nil || !regexp.MustCompile(tc.want).MatchString(first.Error()) {
				t.Fatalf("error %v, want %s", first, tc.want)
			}
			if name == "hanging" {
				return
			}
			if _, second := c.Obtain(context.Background()); second == nil || second.Error() != first.Error() {
				t.Errorf("then %v, first %v", second, first)
			}
		})
	}
}

func TestCABundleAndProxy(t *testing.T) {
	w := ststest.New(t)
	role := w.Role(t, account, "writer", 3600)
	obtain := func(change func(*session.Options)) error {
		_, err := client(t, w, role, change).Obtain(context.Background())
		return err
	}
	if err := obtain(func(o *session.Options) { o.Endpoint, o.CABundle = w.TLSURL, string(w.CA) }); err != nil {
		t.Error("with the CA:", err)
	}
	base, err := url.Parse(w.URL)
	testkit.Must(t, err)
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if r.In.URL.Host == "sts.eu-west-1.example" { // as proxies are asked
			r.SetURL(base)
		}
	}})
	defer proxy.Close()
	if err := obtain(func(o *session.Options) { o.Endpoint, o.ProxyURL = "http://sts.eu-west-1.example", proxy.URL }); err != nil {
		t.Error("through the proxy:", err)
	}
}

// TestEndpoints: each kind of AWS endpoint returns a session, also a chained one, from another
// region than the workspace's. The double refuses a signature for another region.
func TestEndpoints(t *testing.T) {
	w := ststest.New(t)
	first := w.Role(t, account, "first", 3600)
	second := w.ChainedRole(t, "444455556666", "second", first)
	proxy := w.StartProxy(t)
	for _, endpoint := range []string{
		"", // of the workspace's region
		"https://sts.us-east-2.amazonaws.com",
		"https://sts-fips.us-west-2.amazonaws.com",
		"https://sts.eu-central-1.api.aws",
		"https://vpce-0123456789abcdef0-1a2b3c4d.sts.us-west-1.vpce.amazonaws.com",
		"https://sts.amazonaws.com",
	} {
		for _, role := range []string{"", second} {
			_, err := client(t, w, first, func(o *session.Options) {
				o.Endpoint, o.ProxyURL, o.CABundle, o.AssumeRole = endpoint, proxy, string(w.CA), role
			}).Obtain(t.Context())
			if err != nil {
				t.Errorf("endpoint %q, assumeRole %q: %v", endpoint, role, err)
			}
		}
	}
}

func TestNewClientErrors(t *testing.T) {
	garbage := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}))
	for want, o := range map[string]session.Options{
		"sts.proxyURL": {ProxyURL: "no url"},
		"sts.caBundle": {CABundle: garbage},
	} {
		if _, err := session.NewClient(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %s", err, want)
		}
	}
}

// TestEnvironmentIsIgnored: EKS's webhook and others add an identity to every container of a pod,
// also to the sidecar.
func TestEnvironmentIsIgnored(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/other", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent", "AWS_ROLE_SESSION_NAME": "other",
		"AWS_ACCESS_KEY_ID": "AKIAOTHER", "AWS_SECRET_ACCESS_KEY": "other", "AWS_SESSION_TOKEN": "other", "AWS_PROFILE": "other",
		"AWS_REGION": "us-gov-west-1", "AWS_DEFAULT_REGION": "us-gov-west-1", "AWS_CONFIG_FILE": "/nonexistent",
		"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_ENDPOINT_URL":            "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1", "AWS_CA_BUNDLE": "/nonexistent",
		"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_STS_REGIONAL_ENDPOINTS": "legacy", "AWS_MAX_ATTEMPTS": "9",
	} {
		t.Setenv(name, value)
	}
	w := ststest.New(t)
	first := w.Role(t, account, "first", 43200)
	second := w.ChainedRole(t, "444455556666", "second", first)
	for _, assumeRole := range []string{"", second} {
		if _, err := client(t, w, first, assume(assumeRole)).Obtain(context.Background()); err != nil {
			t.Errorf("with assumeRole %q: %v", assumeRole, err)
		}
	}
	for _, call := range w.Calls() {
		if call.Service == "sts" && !strings.HasSuffix(call.Principal, "/dev-monitoring-prometheus-0") {
			t.Errorf("%s by %q", call.Action, call.Principal)
		}
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	testkit.Must(t, socket.Close())
	return socket.Addr().String()
}
