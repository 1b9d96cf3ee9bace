package webhook_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// authority signs client certificates.
type authority struct {
	*testing.T
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "clients"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, key, err := servingcert.Issue(template, template, nil)
	testkit.Must(t, err)
	certificate, err := x509.ParseCertificate(der)
	testkit.Must(t, err)
	return &authority{t, certificate, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

func (a *authority) sign(name string, usage x509.ExtKeyUsage, names ...string) tls.Certificate {
	a.Helper()
	der, key, err := servingcert.Issue(&x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}, a.certificate, a.key)
	testkit.Must(a.T, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// The webhook answers only a client with a certificate of the CA and one of the names. A new CA is
// used immediately; an invalid one is ignored.
func TestClientCertificates(t *testing.T) {
	old, other := newAuthority(t), newAuthority(t)
	ca := testkit.TempFile(t, "ca.crt", old.pem)
	w := run(t, func(o *webhook.Options) {
		o.ClientCA, o.ClientNames = ca, []string{"kube-apiserver", "api.example.com"}
	})
	server := w.writeCertificate()
	w.writePolicy()
	w.eventuallyReady()
	roots := server.Transport.(*http.Transport).TLSClientConfig.RootCAs
	call := func(certificates ...tls.Certificate) error {
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: certificates}, ForceAttemptHTTP2: true,
		}}
		defer client.CloseIdleConnections()
		answer, err := client.Get("https://" + w.Addr + "/pods/enabled")
		if err == nil {
			_ = answer.Body.Close()
		}
		return err
	}
	good, client := old.sign("kube-apiserver", x509.ExtKeyUsageClientAuth), x509.ExtKeyUsageClientAuth
	for _, c := range []struct {
		name         string
		certificates []tls.Certificate
		answered     bool
	}{
		{"an API server", []tls.Certificate{good}, true},
		{"a DNS name", []tls.Certificate{old.sign("any", client, "api.example.com")}, true},
		{"no certificate", nil, false},
		{"another CA", []tls.Certificate{other.sign("kube-apiserver", client)}, false},
		{"another name", []tls.Certificate{old.sign("kubelet", client, "node.example.com")}, false},
		{"a server's certificate", []tls.Certificate{old.sign("kube-apiserver", x509.ExtKeyUsageServerAuth)}, false},
	} {
		if err := call(c.certificates...); (err == nil) != c.answered {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// An invalid file changes nothing.
	testkit.WriteFile(t, ca, "-----BEGIN")
	if err := call(good); err != nil {
		t.Errorf("with a bad file: %v", err)
	}
	if !strings.Contains(w.log.String(), "keeping the last one") {
		t.Errorf("the bad file is not in the log: %s", w.log)
	}
	testkit.WriteFile(t, ca, other.pem)
	if err := call(good); err == nil {
		t.Error("after the change of the CA, a certificate of the old one is accepted")
	}
	if err := call(other.sign("kube-apiserver", client)); err != nil {
		t.Errorf("after the change of the CA: %v", err)
	}
}

// The webhook does not start if it cannot verify its clients.
func TestClientCAThatIsNone(t *testing.T) {
	bad := testkit.TempFile(t, "ca.crt", "none")
	large := testkit.TempFile(t, "large.crt", strings.Repeat("#\n", 256<<10)) // its end would be cut off
	for _, path := range []string{bad, large, filepath.Join(t.TempDir(), "missing")} {
		err := webhook.Run(t.Context(), webhook.Options{
			PolicyFile: "policy.yaml", Image: image, CertDir: t.TempDir(), ClientCA: path, Cluster: webhook.NewCluster(nil),
		})
		if err == nil || !strings.Contains(err.Error(), "CA of client certificates") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
