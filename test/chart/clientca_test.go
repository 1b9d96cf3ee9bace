package chart

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// A real API server shows the certificate that docs/guides/certificates.md has it show: the webhook
// with the CA answers it, and one with another CA does not.
func TestARealAPIServersCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, other := clientCertificate(t, dir), clientCertificate(t, t.TempDir())
	addr := testkit.FreeAddr(t)
	kubeconfig, admission := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "admission.yaml")
	testkit.Must(t, os.WriteFile(kubeconfig, fmt.Appendf(nil, `apiVersion: v1
kind: Config
users:
- name: %q
  user: {client-certificate: %s/client.crt, client-key: %s/client.key}
`, addr, dir, dir), 0o600))
	testkit.Must(t, os.WriteFile(admission, fmt.Appendf(nil, `apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: MutatingAdmissionWebhook
  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: %s}
`, kubeconfig), 0o600))
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{ExtraAPIServerArgs: []string{"--admission-control-config-file=" + admission}})}
	testkit.Must(t, f.Namespace(t.Context(), "monitoring", map[string]string{"ampbridge.io/injection": "enabled"}))

	bundle, err := servingcert.Write(dir, "127.0.0.1")
	testkit.Must(t, err)
	clients := filepath.Join(dir, "clients.crt")
	testkit.Must(t, os.WriteFile(clients, ca, 0o600))
	health, metrics := testkit.FreeAddr(t), testkit.FreeAddr(t)
	log := run(t, binary(t), "webhook",
		"--policy="+testkit.TempFile(t, "policy.yaml", renderedPolicy(t, "-f", minimal)), "--image=ampbridge:dev", "--cert-dir="+dir,
		"--addr="+addr, "--health-addr="+health, "--metrics-addr="+metrics, "--drain-delay=0s", "--kubeconfig="+f.Kubeconfig(),
		"--client-ca="+clients, "--client-name=kube-apiserver")
	testkit.EventuallyEmpty(t, func() string { return log.under(answers(t, "http://"+health+"/readyz", "ok")) })
	url := "https://" + addr
	object, err := registration.New(registration.Options{
		FailurePolicy: admissionv1.Fail, ClientConfig: admissionv1.WebhookClientConfig{URL: &url, CABundle: bundle},
	})
	testkit.Must(t, err)
	_, err = f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), object, metav1.CreateOptions{})
	testkit.Must(t, err)
	create := func() error {
		_, err := f.Client().CoreV1().Pods("monitoring").Create(t.Context(), pod("quay.io/prometheus/prometheus:v3.1.0", nil, nil),
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	}
	testkit.EventuallyEmpty(t, func() string {
		if err := create(); err != nil {
			return log.under(err.Error())
		}
		return answers(t, "http://"+metrics+"/metrics", "\nampbridge_admission_decisions_total{")
	})
	// An API server keeps its connection, so the webhook with the other CA is a new one.
	testkit.Must(t, os.WriteFile(clients, other, 0o600))
	deleted := metav1.DeleteOptions{}
	testkit.Must(t, f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(t.Context(), object.Name, deleted))
	object.Webhooks[0].TimeoutSeconds = new(int32(7)) // a client of its own in the API server
	object.Webhooks[0].ClientConfig.CABundle = slices.Concat(bundle, []byte{'\n'})
	object.ResourceVersion, object.UID = "", ""
	_, err = f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Create(t.Context(), object, metav1.CreateOptions{})
	testkit.Must(t, err)
	testkit.EventuallyEmpty(t, func() string {
		if err := create(); err == nil || !strings.Contains(err.Error(), "failed calling webhook") {
			return log.under(fmt.Sprint("the webhook answers a client of another CA: ", err))
		}
		return ""
	})
}

// clientCertificate makes client.crt and client.key, and returns the CA.
func clientCertificate(t *testing.T, dir string) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := func(name string) *x509.Certificate {
		return &x509.Certificate{
			SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		}
	}
	ca, client := template("clients"), template("kube-apiserver")
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	client.KeyUsage, client.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	testkit.Must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, client, ca, key.Public(), key)
	testkit.Must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	testkit.Must(t, err)
	for name, block := range map[string]*pem.Block{
		"client.crt": {Type: "CERTIFICATE", Bytes: der}, "client.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		testkit.Must(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
}
