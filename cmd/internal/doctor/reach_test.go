package doctor

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// kubeconfigOf writes a kubeconfig with one context, dev, and returns its path. user is the
// user in YAML.
func kubeconfigOf(t *testing.T, server, user string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	testkit.WriteFile(t, path, `
apiVersion: v1
kind: Config
current-context: dev
contexts: [{name: dev, context: {cluster: dev, user: me}}]
clusters: [{name: dev, cluster: {server: "`+server+`"}}]
users: [{name: me, user: `+user+`}]
`)
	return path
}

// apiServer answers /version, and everything else with the status.
func apiServer(t *testing.T, version, other int) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status := other
		if r.URL.Path == "/version" {
			status = version
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(`{"gitVersion": "v1.34.2"}`))
	}))
	t.Cleanup(server.Close)
	return server
}

// Without a cluster that answers and shows its policy, the verdict is one sentence with
// the reason and the fix. It does not list the checks.
func TestVerdictWithoutACluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	noAWSCredentials(t)
	trusted := apiServer(t, http.StatusOK, http.StatusForbidden)
	untrusted := httptest.NewTLSServer(http.NotFoundHandler())
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(untrusted.Close)
	nothing := "Nothing could be checked: "
	for _, c := range []struct {
		name, kubeconfig, context string
		want, fix                 string
		unchecked                 bool
	}{
		{"no kubeconfig", "", "", nothing + "no Kubernetes cluster: name a kubeconfig", "name an existing kubeconfig", true},
		{"a kubeconfig that does not exist", filepath.Join(t.TempDir(), "gone"), "", nothing + "the kubeconfig cannot be used: stat",
			"name an existing kubeconfig", false},
		{"a context that does not exist", kubeconfigOf(t, trusted.URL, "{}"), "prod",
			nothing + `the kubeconfig cannot be used: context "prod" does not exist`, "one of its contexts", false},
		{"a closed port", kubeconfigOf(t, "https://"+testkit.FreeAddr(t), "{}"), "", nothing +
			"the cluster does not answer at https://127.0.0.1",
			"check the kubeconfig and its context, this machine's network", false},
		{"a name without an address", kubeconfigOf(t, "https://gone.invalid", "{}"), "",
			nothing + "the cluster does not answer at https://gone.invalid: dial tcp: lookup", "this machine's network", false},
		{"another certificate", kubeconfigOf(t, untrusted.URL, "{}"), "", nothing + "the kubeconfig does not trust the certificate of",
			"certificate-authority-data", false},
		{"an expired token", kubeconfigOf(t, apiServer(t, http.StatusUnauthorized, http.StatusUnauthorized).URL, "{token: old}"), "",
			"refuses the credentials of the kubeconfig", "log in to the cluster again", false},
		{"a command that is not installed", kubeconfigOf(t, "https://127.0.0.1:1",
			"{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-command, interactiveMode: Never}}"), "",
			nothing + "the kubeconfig's command gives no credentials", "log in to the cluster again", false},
		{"no right to read the policy", kubeconfigOf(t, trusted.URL, "{}"), "",
			"No check failed, but 27 were skipped: the policy could not be read: the ConfigMaps of ampbridge-system cannot be listed",
			"pass the policy's file with --policy", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			o := Options{Kubeconfig: c.kubeconfig, System: "ampbridge-system", Output: JSON}
			o.Overrides.CurrentContext = c.context
			err := Run(t.Context(), o, strings.NewReader(""), &out, &errs)
			incomplete := (*UncheckedError)(nil)
			if err == nil || errors.As(err, &incomplete) != c.unchecked {
				t.Errorf("the error is %v", err)
			}
			var got struct {
				Verdict string
				check.Report
			}
			testkit.Must(t, json.Unmarshal(out.Bytes(), &got))
			_, fix, _ := strings.Cut(got.Verdict, "First fix: ")
			if !strings.Contains(got.Verdict, c.want) || !strings.Contains(fix, c.fix) || strings.Contains(got.Verdict, "endpoints") {
				t.Errorf("%s\nwant %s … %s", got.Verdict, c.want, c.fix)
			}
			for _, f := range got.Findings {
				if strings.Contains(f.Message, "no policy") {
					t.Errorf("%s: %s", f.ID, f.Message)
				}
			}
		})
	}
}

// noAWSCredentials removes everything in which the SDK could find credentials.
func noAWSCredentials(t *testing.T) {
	t.Helper()
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
}

// If this machine is the reason why AWS was not checked, the finding names it and the fix.
func TestCallerIdentityNamesTheReason(t *testing.T) {
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `<ErrorResponse><Error><Code>ExpiredToken</Code><Message>it has expired</Message></Error></ErrorResponse>`,
			http.StatusForbidden)
	}))
	t.Cleanup(refusing.Close)
	keys := map[string]string{"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_MAX_ATTEMPTS": "1"}
	for _, c := range []struct {
		name      string
		env       map[string]string
		want, fix string
	}{
		{"none", nil, "there are no AWS credentials on this machine", "log in to AWS"},
		{"a profile that does not exist", map[string]string{"AWS_PROFILE": "gone"}, "there is no AWS profile \"gone\"",
			"correct AWS_PROFILE"},
		{"a token file that does not exist", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": "/gone",
			"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/r"}, "cannot be read: ", "log in to AWS"},
		{"no answer", map[string]string{"AWS_ENDPOINT_URL_STS": "http://" + testkit.FreeAddr(t)},
			"AWS did not answer this machine: connection refused",
			"this machine's network"},
		{"refused", map[string]string{"AWS_ENDPOINT_URL_STS": refusing.URL}, "AWS refuses the credentials of this machine: ExpiredToken",
			"log in to AWS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			noAWSCredentials(t)
			if c.env["AWS_ENDPOINT_URL_STS"] != "" {
				for name, value := range keys {
					t.Setenv(name, value)
				}
			}
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			me := callerIdentity(t.Context(), "eu-west-1")
			if !strings.Contains(me.missing, c.want) || !strings.Contains(me.fix.Summary, c.fix) {
				t.Errorf("%s → %s, want %s → %s", me.missing, me.fix.Summary, c.want, c.fix)
			}
		})
	}
}

// If this machine cannot reach the issuer, its own network may be the cause. The check fails
// only if AWS cannot reach the issuer either, or if the issuer's name is private.
func TestKeysThatThisMachineCannotReach(t *testing.T) {
	const public, private policy.Issuer = "https://issuer.invalid/dev", "https://kubernetes.default.svc.cluster.local"
	token := check.Claims{Issuer: public}
	refused := func(code, text string) func() *check.Refusal {
		return func() *check.Refusal { return &check.Refusal{Code: code, Text: text, Status: 400} }
	}
	for _, c := range []struct {
		name    string
		issuer  policy.Issuer
		ask     func() *check.Refusal
		status  check.Status
		message string
	}{
		{"no such host", public, nil, check.Skip, "this machine could not reach the issuer"},
		{"no such host, and a token that AWS refuses for another reason", public, refused("AccessDenied", "not authorized"),
			check.Skip, "this machine could not reach the issuer"},
		{"no such host, also for AWS", public, refused("IDPCommunicationError", "no answer"), check.Fail, "AWS cannot read it either"},
		{"no such host, and AWS has no keys", public, refused("InvalidIdentityToken", "Couldn't retrieve verification key"),
			check.Fail, "AWS cannot read it either"},
		{"no such host, and AWS takes the token", public, func() *check.Refusal { return nil }, check.Pass, "AWS has read the keys"},
		{"a private name", private, nil, check.Fail, "which only a private network resolves"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := &runner{Options: Options{Now: time.Now}}
			f := x.keys(t.Context(), c.issuer, "", token, c.ask)
			if f.Status != c.status || !strings.Contains(f.Message, c.message) {
				t.Errorf("%s: %s", f.Status, f.Message)
			}
			if f.Status != check.Pass && (f.Fix == nil || f.Status == check.Skip && !strings.Contains(f.Fix.Summary, "AWS, not this machine")) {
				t.Errorf("the fix: %+v", f.Fix)
			}
		})
	}
}

// Any HTTP response proves that the issuer can be reached, even an error.
func TestReadIssuerIsReached(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	portal := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(portal.Close)
	forbids := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(forbids.Close)
	for name, c := range map[string]struct {
		issuer    string
		unreached bool
	}{
		"no such host":                 {"https://issuer.invalid", true},
		"a closed port":                {"https://" + testkit.FreeAddr(t), true},
		"silence":                      {"https://" + silent.Addr().String(), true},
		"a proxy that speaks no https": {strings.Replace(portal.URL, "http:", "https:", 1), true},
		"404":                          {forbids.URL, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if p := readIssuer(t.Context(), policy.Issuer(c.issuer), ""); p.Unreached != c.unreached || p.Problem == "" {
				t.Errorf("%+v", p)
			}
		})
	}
}

// If AWS's own addresses do not answer, the cause is this machine's network. An endpoint in the
// policy is part of the installation, so its silence is a failure.
func TestNoAnswerOfAMP(t *testing.T) {
	none := check.Refusal{Text: "no answer: connection refused"}
	for _, judge := range []func(check.Refusal, policy.Destination) check.Finding{check.RefusedWrite, check.RefusedRead,
		check.RefusedQuery} {
		for endpoint, want := range map[string]check.Status{"": check.Skip, "https://vpce.example": check.Fail} {
			f := (&runner{}).refusedBy(t.Context(), check.Write, check.About{}, policy.Destination{Endpoint: endpoint}, none, judge)
			if f.Status != want || !strings.Contains(f.Message, "connection refused") || f.Fix == nil {
				t.Errorf("endpoint %q: %s: %s", endpoint, f.Status, f.Message)
			}
		}
		refused := check.Refusal{Code: "ValidationException", Text: "no", Status: 400}
		if f := (&runner{}).refusedBy(t.Context(), check.Write, check.About{}, policy.Destination{}, refused, judge); f.Status != check.Fail {
			t.Errorf("an answer of AMP: %s: %s", f.Status, f.Message)
		}
	}
}

// AWS finds the key by its ID, so the right key under another ID is a finding of its own.
func TestSigned(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	testkit.Must(t, err)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	testkit.Must(t, err)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: key, KeyID: "one"}}, nil)
	testkit.Must(t, err)
	signature, err := signer.Sign([]byte("{}"))
	testkit.Must(t, err)
	token, err := signature.CompactSerialize()
	testkit.Must(t, err)
	public := func(k *rsa.PrivateKey, id string) jose.JSONWebKey {
		return jose.JSONWebKey{Key: &k.PublicKey, KeyID: id}
	}
	for name, c := range map[string]struct {
		keys   []jose.JSONWebKey
		signed bool
		other  string
	}{
		"the key":                 {[]jose.JSONWebKey{public(other, "two"), public(key, "one")}, true, ""},
		"the key twice":           {[]jose.JSONWebKey{public(key, "two"), public(key, "one")}, true, ""},
		"under another ID":        {[]jose.JSONWebKey{public(key, "two")}, false, `"two"`},
		"without an ID":           {[]jose.JSONWebKey{public(key, "")}, false, `""`},
		"another key with its ID": {[]jose.JSONWebKey{public(other, "one")}, false, ""},
	} {
		if ok, id := signed(token, jose.JSONWebKeySet{Keys: c.keys}); ok != c.signed || id != c.other {
			t.Errorf("%s: %v %s", name, ok, id)
		}
	}
}
