// Package servingcert makes the certificates that a webhook, and the API server of
// test/cluster, serve in tests, in benchmarks and in the demo: a directory with tls.crt and tls.key, as
// cert-manager and a Secret volume have it, and the CA to register.
package servingcert

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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

const (
	// life outlasts any test run and any demo.
	life = 30 * 24 * time.Hour
	// skew is how far clocks may differ.
	skew = time.Hour
)

// Issue makes a key and its certificate. The parent's key signs it, or, without one, its own.
func Issue(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (der []byte, key *ecdsa.PrivateKey, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	der, err = x509.CreateCertificate(rand.Reader, template, parent, key.Public(), cmp.Or(parentKey, key))
	return der, key, err
}

// Write makes a new CA and, in dir, which exists, tls.crt and tls.key for the
// hosts: names or IP addresses. A client can show the certificate too; its common
// name is the first host. Write returns the CA's certificate as PEM. Files
// that are there already are replaced, as a rotation does.
func Write(dir string, hosts ...string) (ca []byte, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("servingcert: %w", err)
		}
	}()
	now := time.Now()
	caTemplate := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: fmt.Sprintf("ampbridge test CA %d", now.UnixNano())},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, caKey, err := Issue(caTemplate, caTemplate, nil)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: hosts[0]},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, key, err := Issue(template, caTemplate, caKey)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name, kind string
		der        []byte
	}{{"tls.key", "PRIVATE KEY", keyDER}, {"tls.crt", "CERTIFICATE", der}} {
		if err := os.WriteFile(filepath.Join(dir, f.name), pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der}), 0o600); err != nil {
			return nil, err
		}
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER}), nil
}
