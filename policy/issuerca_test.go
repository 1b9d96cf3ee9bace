package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func certificatePEM(t *testing.T, serial int64) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.Must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestIssuerCA(t *testing.T) {
	one, two := certificatePEM(t, 1), certificatePEM(t, 2)
	var six string
	for n := range int64(6) {
		six += certificatePEM(t, n)
	}
	for _, row := range []struct {
		name, text  string
		thumbprints int
		says        string
	}{
		{"none", "", 0, ""},
		{"one", one, 1, ""},
		{"two, with words between them", "the old\n" + one + "\nthe new\n" + two, 2, ""},
		{"one twice", one + one, 1, ""},
		{"no PEM", "ca.crt", 0, "not PEM text"},
		{"cut off", one[:len(one)-20], 0, "not PEM text"},
		{"something after it", one + "x", 0, "not PEM text"},
		{"a key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}})), 0, "holds a EC PRIVATE KEY"},
		{"not a certificate's content", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})), 0, "cannot be read"},
		{"more than IAM takes", six, 6, "has 6 certificates"},
	} {
		t.Run(row.name, func(t *testing.T) {
			p := load(t, "minimal.yaml")
			p.Cluster.IssuerCA = IssuerCA(row.text)
			errs := p.validate()
			if row.says == "" && len(errs) > 0 ||
				row.says != "" && (len(errs) != 1 || errs[0].Path != "cluster.issuerCA" || !strings.Contains(errs[0].Problem, row.says)) {
				t.Errorf("%v, want one that says %q", errs, row.says)
			}
			got := p.Cluster.IssuerCA.Thumbprints()
			if len(got) != row.thumbprints || !slices.IsSorted(got) ||
				slices.ContainsFunc(got, func(s string) bool { return !regexp.MustCompile("^[0-9a-f]{40}$").MatchString(s) }) {
				t.Errorf("thumbprints %v, want %d", got, row.thumbprints)
			}
		})
	}
}
