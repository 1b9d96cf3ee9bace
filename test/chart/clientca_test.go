package chart

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

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
	client, ca := certificate(t, "kube-apiserver")
	_, other := certificate(t, "kube-apiserver")
	server, bundle := certificate(t, "127.0.0.1")
	addr := testkit.FreeAddr(t)
	kubeconfig, admission := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "admission.yaml")
	testkit.WriteFile(t, kubeconfig, fmt.Sprintf(`apiVersion: v1
kind: Config
users:
- name: %q
  user: {client-certificate: %s/tls.crt, client-key: %[2]s/tls.key}
`, addr, client))
	testkit.WriteFile(t, admission, fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: MutatingAdmissionWebhook
  configuration: {apiVersion: apiserver.config.k8s.io/v1, kind: WebhookAdmissionConfiguration, kubeConfigFile: %s}
`, kubeconfig))
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{ExtraAPIServerArgs: []string{"--admission-control-config-file=" + admission}})}
	f.labelledNamespace(t)

	clients := testkit.TempFile(t, "clients.crt", ca)
	health, metrics := testkit.FreeAddr(t), testkit.FreeAddr(t)
	log := run(t, binary(t), "webhook",
		"--policy="+minimalPolicy(t), "--image=ampbridge:dev", "--cert-dir="+server,
		"--addr="+addr, "--health-addr="+health, "--metrics-addr="+metrics, "--drain-delay=0s", "--kubeconfig="+f.Kubeconfig(),
		"--client-ca="+clients, "--client-name=kube-apiserver")
	testkit.EventuallyEmpty(t, func() string { return log.under(answers(t, "http://"+health+"/readyz", "ok")) })
	url := "https://" + addr
	object, err := registration.New(registration.Options{
		FailurePolicy: admissionv1.Fail, ClientConfig: admissionv1.WebhookClientConfig{URL: &url, CABundle: []byte(bundle)},
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
	testkit.WriteFile(t, clients, other)
	deleted := metav1.DeleteOptions{}
	testkit.Must(t, f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(t.Context(), object.Name, deleted))
	object.Webhooks[0].TimeoutSeconds = new(int32(7)) // a client of its own in the API server
	object.Webhooks[0].ClientConfig.CABundle = []byte(bundle + "\n")
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

// certificate returns a directory with tls.crt and tls.key for the name, and their CA.
func certificate(t *testing.T, name string) (dir, ca string) {
	t.Helper()
	dir = t.TempDir()
	pem, err := servingcert.Write(dir, name)
	testkit.Must(t, err)
	return dir, string(pem)
}
