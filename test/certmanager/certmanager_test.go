package certmanager_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"testing"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The certificate is issued, the bundle injected, and a pod admitted; and again
// after the certificate, and after the authority, is renewed.
func TestCertManager(t *testing.T) {
	f := newFixture(t)
	f.startCertManager(t)
	f.apply(t, "testdata/certificates.yaml")
	f.register(t)
	testkit.Eventually(t, "the certificate is issued", func() bool { return f.data(t, tlsSecret)["tls.crt"] != nil })
	testkit.Eventually(t, "the bundle is injected", func() bool { return bytes.Equal(f.bundle(t), f.data(t, tlsSecret)["ca.crt"]) })
	f.startWebhook(t)
	testkit.Eventually(t, "a pod is injected", func() bool { return f.admit(t) })
	first, authority := f.data(t, tlsSecret), f.data(t, caSecret)
	leaf := parse(t, first["tls.crt"])
	for _, name := range []string{service, service + "." + home, service + "." + home + ".svc"} {
		if err := leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}

	t.Run("the certificate is renewed", func(t *testing.T) {
		f.renewed(t, tlsSecret)
		if now := f.data(t, tlsSecret); !bytes.Equal(now["ca.crt"], first["ca.crt"]) {
			t.Error("the authority is another")
		}
	})

	// The old certificate is good under the new authority, and the new one under
	// the old: pods are injected all the time.
	t.Run("the authority is renewed, and then the certificate", func(t *testing.T) {
		f.renewed(t, caSecret)
		if bytes.Equal(f.data(t, caSecret)["tls.crt"], authority["tls.crt"]) {
			t.Fatal("the authority is the old one")
		}
		// The issuer may take a moment to see its new authority.
		testkit.Eventually(t, "a certificate of the new authority", func() bool {
			f.renewed(t, tlsSecret)
			return bytes.Equal(f.data(t, tlsSecret)["ca.crt"], f.data(t, caSecret)["tls.crt"])
		})
		testkit.Eventually(t, "the new authority is injected", func() bool {
			f.wantInjected(t)
			// cainjector keeps the old one beside it.
			return bytes.Contains(f.bundle(t), f.data(t, caSecret)["tls.crt"])
		})
		f.wantInjected(t)
	})
}

// renewed has cert-manager renew a certificate, and returns when it is there,
// and served if it is the webhook's. Pods are injected meanwhile.
func (f *fixture) renewed(t *testing.T, name string) {
	t.Helper()
	before := f.data(t, name)["tls.crt"]
	f.renew(t, name)
	testkit.Eventually(t, name+" is renewed", func() bool {
		f.wantInjected(t)
		now := f.data(t, name)["tls.crt"]
		return !bytes.Equal(now, before) && (name != tlsSecret || bytes.Equal(f.served(t), parse(t, now).Raw))
	})
	f.wantInjected(t)
}

// renew asks cert-manager for a new certificate, as `cmctl renew` does.
func (f *fixture) renew(t *testing.T, name string) {
	t.Helper()
	testkit.Must(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		var certificate cmapi.Certificate
		if err := f.client.Get(t.Context(), client.ObjectKey{Namespace: home, Name: name}, &certificate); err != nil {
			return err
		}
		apiutil.SetCertificateCondition(
			&certificate,
			certificate.Generation,
			cmapi.CertificateConditionIssuing,
			cmmeta.ConditionTrue,
			"ManuallyTriggered",
			"renewed by a test",
		)
		return f.client.Status().Update(t.Context(), &certificate)
	}))
}

// data is a Secret's; nil when there is none.
func (f *fixture) data(t *testing.T, name string) map[string][]byte {
	t.Helper()
	var secret corev1.Secret
	if err := f.client.Get(t.Context(), client.ObjectKey{Namespace: home, Name: name}, &secret); err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	return secret.Data
}

func parse(t *testing.T, data []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no PEM: %q", data)
	}
	c, err := x509.ParseCertificate(block.Bytes)
	testkit.Must(t, err)
	return c
}

func (f *fixture) wantInjected(t *testing.T) {
	t.Helper()
	if !f.admit(t) {
		t.Error("a pod is not injected")
	}
}
