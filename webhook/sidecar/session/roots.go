package session

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// Roots returns the system's roots plus those of the PEM text bundle; nil for an empty
// bundle. It fails if the bundle has no certificate.
func Roots(bundle string) (*x509.CertPool, error) {
	if bundle == "" {
		return nil, nil
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM([]byte(bundle)) {
		return nil, errors.New("holds no certificate: write PEM text")
	}
	return roots, nil
}

// WriteCAFile writes the system's roots and those of the PEM text bundle to path, for a
// program that trusts only its CA file. It does not write a file that already has this
// content.
func WriteCAFile(path, bundle string) error {
	content := append(systemRoots(), bundle...)
	now, err := os.ReadFile(path)
	if err == nil && bytes.Equal(now, content) {
		return nil
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = WriteFile(path, content, 0o644)
	}
	if err != nil {
		return fmt.Errorf("CA file: %w", err)
	}
	return nil
}

// systemRoots returns the PEM text of the system's roots, from the places where crypto/x509 searches
// them on Linux. If the system has none, as in the image, it returns those in the
// program.
func systemRoots() []byte {
	for _, file := range []string{"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"} {
		if text, err := os.ReadFile(file); err == nil {
			return append(bytes.TrimSpace(text), '\n')
		}
	}
	return embeddedRoots()
}

// embeddedRoots returns the roots in the program. It leaves out those that are trusted only under
// a condition, because a file cannot express that.
func embeddedRoots() []byte {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // writing to a buffer never fails
		}
	}
	return text.Bytes()
}
