package awstest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Signer is an issuer with its own keys. It signs tokens, and it is the handler that
// publishes its keys. It is for tests without a cluster.
type Signer struct {
	// Issuer is its URL.
	Issuer string

	algorithm jose.SignatureAlgorithm

	mu   sync.Mutex
	keys []jose.JSONWebKey // private keys, the signing one last
}

// NewSigner returns an issuer with a new key for the algorithm (RS256 to RS512, ES256 to ES512).
func NewSigner(issuer string, algorithm jose.SignatureAlgorithm) *Signer {
	s := &Signer{Issuer: issuer, algorithm: algorithm}
	s.Rotate(0)
	return s
}

// Rotate creates a new signing key, and continues to publish the last n older ones.
func (s *Signer) Rotate(n int) {
	key := jose.JSONWebKey{Key: newKey(s.algorithm), KeyID: randomID(12), Algorithm: string(s.algorithm), Use: "sig"}
	s.mu.Lock()
	defer s.mu.Unlock()
	older := s.keys[max(0, len(s.keys)-n):]
	s.keys = append(slices.Clone(older), key)
}

func newKey(algorithm jose.SignatureAlgorithm) crypto.Signer {
	curves := map[jose.SignatureAlgorithm]elliptic.Curve{
		jose.ES256: elliptic.P256(), jose.ES384: elliptic.P384(), jose.ES512: elliptic.P521(),
	}
	var key crypto.Signer
	var err error
	if curve, ok := curves[algorithm]; ok {
		key, err = ecdsa.GenerateKey(curve, rand.Reader)
	} else {
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		panic(err) // cannot happen: crypto/rand never fails
	}
	return key
}

// Claims returns the claims of a Kubernetes token with that subject and audience, valid
// for an hour from now.
func (s *Signer) Claims(subject, audience string) map[string]any {
	now := time.Now()
	return map[string]any{
		"iss": s.Issuer, "sub": subject, "aud": []string{audience},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
}

// Token returns a signed token with [Signer.Claims].
func (s *Signer) Token(subject, audience string) string {
	return s.Sign(s.Claims(subject, audience))
}

// Sign returns a token with exactly these claims. It panics on claims that JSON cannot encode.
func (s *Signer) Sign(claims map[string]any) string {
	s.mu.Lock()
	key := s.keys[len(s.keys)-1]
	s.mu.Unlock()
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(fmt.Sprintf("claims: %v", err))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: s.algorithm, Key: key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		panic(fmt.Sprintf("sign with %s: %v", s.algorithm, err))
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(fmt.Sprintf("sign with %s: %v", s.algorithm, err))
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		panic(fmt.Sprintf("serialise a token: %v", err))
	}
	return token
}

// ServeHTTP implements [http.Handler]. It serves the discovery document and the public keys at the
// paths that a kube-apiserver uses.
func (s *Signer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var answer any
	switch r.URL.Path {
	case "/.well-known/openid-configuration":
		answer = map[string]any{
			"issuer":                                s.Issuer,
			"jwks_uri":                              strings.TrimSuffix(s.Issuer, "/") + "/openid/v1/jwks",
			"response_types_supported":              []string{"id_token"},
			"subject_types_supported":               []string{"public"},
			"id_token_signing_alg_values_supported": []jose.SignatureAlgorithm{s.algorithm},
		}
	case "/openid/v1/jwks":
		s.mu.Lock()
		set := jose.JSONWebKeySet{}
		for _, key := range s.keys {
			set.Keys = append(set.Keys, key.Public())
		}
		s.mu.Unlock()
		answer = set
	default:
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // an error means that the client disconnected
}
