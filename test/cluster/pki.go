package cluster

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"

	"github.com/ampbridge/ampbridge/test/servingcert"
)

// A pki holds the secrets of one cluster, as files in its directory.
type pki struct {
	dir        string
	ca         []byte // PEM
	adminToken string
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, "pki", name) }

// newPKI creates a CA, the API server's serving certificate, the key that signs service account tokens, and
// the administrator's token.
func newPKI(dir string) (*pki, error) {
	p := &pki{dir: dir, adminToken: rand.Text()}
	if err := os.Mkdir(filepath.Join(dir, "pki"), 0o700); err != nil {
		return nil, err
	}
	// The second address is the Service "kubernetes", the first of the range.
	ca, err := servingcert.Write(
		p.path(""), "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", loopback, "10.96.0.1",
	)
	if err != nil {
		return nil, err
	}
	// AWS accepts only RS256.
	tokenKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	tokenKeyDER, err := x509.MarshalPKCS8PrivateKey(tokenKey)
	if err != nil {
		return nil, err
	}
	tokenPublicDER, err := x509.MarshalPKIXPublicKey(tokenKey.Public())
	if err != nil {
		return nil, err
	}

	p.ca = ca
	for name, content := range map[string][]byte{
		"ca.crt":     p.ca,
		"sa.key":     encode("PRIVATE KEY", tokenKeyDER),
		"sa.pub":     encode("PUBLIC KEY", tokenPublicDER),
		"tokens.csv": fmt.Appendf(nil, "%s,admin,admin,system:masters\n", p.adminToken),
	} {
		if err := os.WriteFile(p.path(name), content, 0o600); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
