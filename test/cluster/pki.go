package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// certificateLife outlasts any test run and any demo.
const certificateLife = 30 * 24 * time.Hour

// A pki is the secrets of one cluster, as files in its directory.
type pki struct {
	dir        string
	ca         []byte // PEM
	adminToken string
}

func (p *pki) path(name string) string { return filepath.Join(p.dir, "pki", name) }

// newPKI makes a CA, the API server's serving certificate, the key that signs
// service account tokens, and the administrator's token.
func newPKI(dir string) (*pki, error) {
	p := &pki{dir: dir, adminToken: rand.Text()}
	if err := os.Mkdir(filepath.Join(dir, "pki"), 0o700); err != nil {
		return nil, err
	}
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	ca := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "ampbridge test cluster"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(certificateLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	servingKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serving := &x509.Certificate{
		SerialNumber: big.NewInt(2),
		Subject:      pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:    ca.NotBefore,
		NotAfter:     ca.NotAfter,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		// The second is the Service "kubernetes", the first of the range.
		IPAddresses: []net.IP{net.ParseIP(loopback), net.IPv4(10, 96, 0, 1)},
	}
	servingDER, err := x509.CreateCertificate(rand.Reader, serving, ca, servingKey.Public(), caKey)
	if err != nil {
		return nil, err
	}
	// AWS takes RS256 alone.
	tokenKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	servingKeyDER, err := x509.MarshalPKCS8PrivateKey(servingKey)
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

	p.ca = encode("CERTIFICATE", caDER)
	for name, content := range map[string][]byte{
		"ca.crt":        p.ca,
		"apiserver.crt": encode("CERTIFICATE", servingDER),
		"apiserver.key": encode("PRIVATE KEY", servingKeyDER),
		"sa.key":        encode("PRIVATE KEY", tokenKeyDER),
		"sa.pub":        encode("PUBLIC KEY", tokenPublicDER),
		"tokens.csv":    fmt.Appendf(nil, "%s,admin,admin,system:masters\n", p.adminToken),
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
