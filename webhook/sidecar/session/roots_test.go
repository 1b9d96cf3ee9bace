package session

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// subjects returns the names in the certificates of a PEM text.
func subjects(t *testing.T, text []byte) (names []string) {
	t.Helper()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		testkit.Must(t, err)
		names = append(names, certificate.Subject.String())
	}
	return names
}

// TestCAFile: the file has the bundle, and the system's roots before it.
func TestCAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "central.ca.pem")
	own := string(awstest.Start(t, awstest.Options{}).CA)
	testkit.Must(t, WriteCAFile(path, own))
	text, err := os.ReadFile(path)
	testkit.Must(t, err)
	if names := subjects(t, text); len(names) < 50 || names[len(names)-1] != subjects(t, []byte(own))[0] {
		t.Errorf("%d certificates: %v", len(names), names)
	}
	before, err := os.Stat(path)
	testkit.Must(t, err)
	testkit.Must(t, WriteCAFile(path, own))
	if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the same content is written again (%v)", err)
	}
	testkit.Must(t, WriteCAFile(path, ""))
	if text, err = os.ReadFile(path); err != nil || bytes.Contains(text, []byte(strings.TrimSpace(own))) {
		t.Errorf("the former bundle is still there (%v)", err)
	}
	if err := WriteCAFile(filepath.Join(path, "in a file"), own); err == nil {
		t.Error("a file in no directory is written")
	}
}

// TestEmbeddedRoots: the image has no file of roots, so the program's own must do for
// AWS, whose certificates Amazon signs.
func TestEmbeddedRoots(t *testing.T) {
	names := subjects(t, embeddedRoots())
	if len(names) < 50 || !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, "Amazon Root CA 1") }) {
		t.Errorf("%d roots: %v", len(names), names)
	}
}
