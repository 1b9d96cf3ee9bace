package awstest_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestUpstreamIssuer is a cluster: its API server wants a bearer token, has a certificate of its own CA, and
// knows nothing of the path that its issuer has in public.
func TestUpstreamIssuer(t *testing.T) {
	f := newFixture(t)
	signer := awstest.NewSigner(aksIssuer, jose.RS256)
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer let-me-in" {
			http.Error(rw, "who are you?", http.StatusUnauthorized)
			return
		}
		signer.ServeHTTP(rw, r)
	}))
	defer server.Close()
	base, err := url.Parse(server.URL)
	testkit.Must(t, err)
	for bearer, want := range map[string]bool{"let-me-in": true, "": false} {
		handler := awstest.Upstream(base, server.Client().Transport, bearer)
		if _, err := f.cloud.RegisterIssuer(aksIssuer, handler, awstest.PublicCA); err != nil {
			t.Fatal(err)
		}
		if want {
			f.createProvider(aksIssuer, stsTokens)
			f.updateTrust(trust(f.account.ProviderARN(aksIssuer), aksIssuer, subject))
		}
		f.cloud.Advance(fetchedAnew)
		_, err := f.assume(signer.Token(subject, stsTokens))
		if want && err != nil {
			t.Error(err)
		}
		if !want {
			wantError(t, err, "InvalidIdentityToken", "")
		}
	}
}

// TestDiscoveryDocuments is what STS wants of an issuer's documents.
func TestDiscoveryDocuments(t *testing.T) {
	f := newFixture(t)
	elsewhere := awstest.NewSigner("https://keys.example", jose.RS256)
	register(t, f.cloud, elsewhere, awstest.PublicCA)
	document := func(issuer, jwks string) http.Handler {
		return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.URL.Path, "/.well-known/") {
				f.signer.ServeHTTP(rw, r)
				return
			}
			_ = json.NewEncoder(rw).Encode(map[string]string{"issuer": issuer, "jwks_uri": jwks})
		})
	}
	jwks := eksIssuer + "/openid/v1/jwks"
	tests := []struct {
		name    string
		handler http.Handler
		token   string
		want    bool
	}{
		{"as it should be", document(eksIssuer, jwks), f.signer.Token(subject, stsTokens), true},
		{"of another issuer", document(eksIssuer+"/", jwks), f.signer.Token(subject, stsTokens), false},
		{
			"keys on a host that is not public",
			document(eksIssuer, "https://10.0.0.1:6443/openid/v1/jwks"),
			f.signer.Token(subject, stsTokens),
			false,
		},
		{"keys over http", document(eksIssuer, "http"+strings.TrimPrefix(jwks, "https")), f.signer.Token(subject, stsTokens), false},
		{"keys behind a double slash", document(eksIssuer, eksIssuer+"//openid/v1/jwks"), f.signer.Token(subject, stsTokens), false},
		{"keys of somebody else", document(eksIssuer, "https://keys.example/openid/v1/jwks"), f.signer.Token(subject, stsTokens), false},
		{"no document", http.NotFoundHandler(), f.signer.Token(subject, stsTokens), false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := f.cloud.RegisterIssuer(eksIssuer, test.handler, awstest.PublicCA); err != nil {
				t.Fatal(err)
			}
			f.cloud.Advance(fetchedAnew)
			_, err := f.assume(test.token)
			wantOutcome(t, err, test.want, "InvalidIdentityToken", noKey)
		})
	}
}

func TestIssuersShareAHost(t *testing.T) {
	f := newFixture(t)
	for _, path := range []string{"clusters", "clusters/one", "clusters/one/deep/"} {
		signer := awstest.NewSigner("https://shared.example/"+path, jose.ES256)
		register(t, f.cloud, signer, awstest.PublicCA)
		f.createProvider(signer.Issuer, stsTokens)
		f.updateTrust(trust(f.account.ProviderARN(signer.Issuer), signer.Issuer, subject))
		if _, err := f.assume(signer.Token(subject, stsTokens)); err != nil {
			t.Errorf("%s: %v", signer.Issuer, err)
		}
	}
	if _, err := f.cloud.RegisterIssuer("https://shared.example/x", http.NotFoundHandler(), awstest.PrivateCA); err == nil {
		t.Error("one host has certificates of two CAs")
	}
	for _, issuer := range []string{"http://a.example", "https://a.example:8443", "https://a.example?x=y", "a.example"} {
		if _, err := f.cloud.RegisterIssuer(issuer, http.NotFoundHandler(), awstest.PublicCA); err == nil {
			t.Errorf("RegisterIssuer(%q) succeeds", issuer)
		}
	}
}
