package certificates

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// skew is how far the API server's clock may be behind this machine's.
const skew = time.Hour

// Pair is a serving certificate with its key, and the authority that signed it.
type Pair struct {
	// Certificate and Key are PEM.
	Certificate, Key []byte
	authority        *x509.Certificate
	served           tls.Certificate
}

// Issue creates a pair for the names. It is valid from an hour ago until the end
// of its life. Issue also creates a new authority and forgets the authority's key, so that it
// cannot be stolen to sign another certificate that API servers trust.
func Issue(names []string, now time.Time, life time.Duration) (*Pair, error) {
	pair, err := issue(names, now, life)
	if err != nil {
		return nil, fmt.Errorf("issue a serving certificate: %w", err)
	}
	return pair, nil
}

func issue(names []string, now time.Time, life time.Duration) (*Pair, error) {
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	authority := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "ampbridge webhook CA"},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	// Parse it to get the key's identifier, which the certificate must contain.
	if authority, err = x509.ParseCertificate(authorityDER); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:   pkix.Name{CommonName: "ampbridge webhook"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, key.Public(), authorityKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return parsePair(encodePEM("CERTIFICATE", authorityDER), encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", keyDER))
}

// parsePair parses a pair, and checks that its parts belong together.
func parsePair(authority, certificate, key []byte) (*Pair, error) {
	authorities := parseBundle(authority)
	if len(authorities) != 1 {
		return nil, fmt.Errorf("has %d authorities, want 1", len(authorities))
	}
	served, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	if err := served.Leaf.CheckSignatureFrom(authorities[0]); err != nil {
		return nil, errors.New("is not signed by the authority beside it")
	}
	return &Pair{Certificate: certificate, Key: key, authority: authorities[0], served: served}, nil
}

// Equal reports whether both pairs have the same certificate.
func (p *Pair) Equal(other *Pair) bool {
	return p != nil && other != nil && bytes.Equal(p.served.Leaf.Raw, other.served.Leaf.Raw)
}

// NotAfter returns the end of the pair's life.
func (p *Pair) NotAfter() time.Time {
	if p.authority.NotAfter.Before(p.served.Leaf.NotAfter) {
		return p.authority.NotAfter
	}
	return p.served.Leaf.NotAfter
}

// usable reports whether the pair can be served now.
func (p *Pair) usable(now time.Time) bool { return p != nil && now.Before(p.NotAfter()) }

// covers reports whether the pair is valid for all the names.
func (p *Pair) covers(names []string) bool {
	for _, name := range names {
		if p.served.Leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	return true
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
