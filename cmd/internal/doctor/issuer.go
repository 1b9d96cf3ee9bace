package doctor

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

const (
	// issuerTimeout is AWS's timeout for an issuer.
	issuerTimeout = 5 * time.Second
	// maxDocument is the most that is read of a document, in bytes.
	maxDocument = 1 << 20
)

// readIssuer reads the discovery document and the keys as AWS does: over https, without
// credentials. If there is a token, it verifies the token's signature with the keys. It does
// not send the token to the issuer.
func readIssuer(ctx context.Context, issuer policy.Issuer, token string) check.Published {
	p := check.Published{Public: true}
	r := issuerReader{roots: nil}
	var discovery struct {
		Issuer  policy.Issuer `json:"issuer"`
		JWKSURI string        `json:"jwks_uri"`
	}
	err := r.json(ctx, strings.TrimSuffix(string(issuer), "/")+"/.well-known/openid-configuration", &discovery)
	if r.roots != nil {
		p.Public = false
	}
	p.Thumbprint = r.thumbprint
	if err != nil {
		p.Unreached, p.Problem = !r.answered, fmt.Sprintf("the discovery document cannot be read: %v", err)
		return p
	}
	p.Issuer, p.JWKSURI = discovery.Issuer, discovery.JWKSURI
	if !strings.HasPrefix(p.JWKSURI, "https://") {
		return p
	}
	var keys jose.JSONWebKeySet
	if err := r.json(ctx, discovery.JWKSURI, &keys); err != nil {
		p.Unreached, p.Problem = !r.answered, fmt.Sprintf("the keys cannot be read: %v", err)
		return p
	}
	for _, k := range keys.Keys {
		p.Keys = append(p.Keys, k.KeyID)
	}
	p.Signed, p.OtherID = signed(token, keys)
	return p
}

var algorithms = []jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.ES256, jose.ES384, jose.ES512}

// signed reports whether the key with the token's key ID verifies the token. If only a key
// with another ID does, other is that ID, in quotes.
func signed(token string, keys jose.JSONWebKeySet) (ok bool, other string) {
	parsed, err := jose.ParseSignedCompact(token, algorithms)
	if err != nil {
		return false, ""
	}
	for _, k := range keys.Keys {
		if _, err := parsed.Verify(k.Key); err != nil {
			continue
		}
		if k.KeyID == parsed.Signatures[0].Header.KeyID {
			return true, ""
		}
		other = strconv.Quote(k.KeyID)
	}
	return false, other
}

// issuerReader reads documents of an issuer with a certificate of a public CA. It also trusts
// the last certificate of a private chain, because AWS trusts that certificate by its
// thumbprint.
type issuerReader struct {
	// roots has the last certificate of a private chain; nil: the chain is public.
	roots      *x509.CertPool
	thumbprint string
	// answered is true if the last request got an HTTP response.
	answered bool
}

func (r *issuerReader) json(ctx context.Context, from string, into any) error {
	err := r.get(ctx, from, into)
	if chain := unverified(err); chain != nil && r.roots == nil {
		r.roots = x509.NewCertPool()
		top := chain[len(chain)-1]
		r.roots.AddCert(top)
		r.thumbprint = thumbprint(top)
		err = r.get(ctx, from, into)
	}
	return err
}

func (r *issuerReader) get(ctx context.Context, from string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, issuerTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: r.roots},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if r.answered = err == nil; err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", from, response.Status)
	}
	if response.TLS != nil && r.thumbprint == "" {
		chain := response.TLS.PeerCertificates
		r.thumbprint = thumbprint(chain[len(chain)-1])
	}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxDocument)).Decode(into); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return nil
}

// thumbprint returns the thumbprint for a provider's list
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html).
func thumbprint(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw)
	return hex.EncodeToString(sum[:])
}
