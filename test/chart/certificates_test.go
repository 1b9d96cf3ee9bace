package chart

import (
	"fmt"
	"regexp"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// testCertificateModes goes from each way to have a certificate to the others. Who
// wrote the CA bundle before is another manager of the field.
func (f *fixture) testCertificateModes(t *testing.T) {
	authority := func(name string) string {
		return "-----BEGIN CERTIFICATE-----\n" + name + "\n-----END CERTIFICATE-----\n"
	}
	mode := func(name string) []string { return []string{"-f", minimal, "--set", "certificates.mode=" + name} }
	provided := func(ca string) []string {
		return append(mode("provided"), "--set", "certificates.provided.secretName=own",
			"--set", "certificates.provided.caBundle="+authority(ca))
	}
	registrations := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	bundles := func(want string) {
		t.Helper()
		registered := f.registration(t)
		for _, w := range registered.Webhooks {
			if got := string(w.ClientConfig.CABundle); got != want {
				t.Errorf("%s: the CA bundle is %q, want %q", w.Name, got, want)
			}
		}
	}
	// takeOver changes to the user's own certificate. Helm 4 must first be told to.
	takeOver := func(writer, ca string) {
		t.Helper()
		if f.program == helm4 {
			deployment := f.webhook(t)
			stderr := f.refusedUpgrade(t, provided(ca)...)
			names(
				t,
				stderr,
				"certificates.provided.caBundle",
				"was written by "+writer,
				"kubectl delete mutatingwebhookconfiguration,validatingwebhookconfiguration ampbridge",
				"Nothing was changed",
			)
			if now := f.webhook(t); now.Generation != deployment.Generation {
				t.Error("the refused upgrade changed the webhook's Deployment")
			}
			testkit.Must(t, registrations.Delete(t.Context(), registration.DefaultName, metav1.DeleteOptions{}))
			validating := f.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
			if err := validating.Delete(t.Context(), registration.DefaultName, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
				testkit.Must(t, err)
			}
		}
		f.upgrade(t, provided(ca)...)
		bundles(authority(ca))
	}

	f.install(t, "-f", minimal)
	webhook := f.startDeployment(t, "ampbridge-webhook", render(t, "-f", minimal), minimalPolicy(t))
	webhook.shows(t, "\nampbridge_certificate_trusted 1\n")
	takeOver("ampbridge", "first")
	forbidden := regexp.MustCompile(`mutatingwebhookconfigurations[^\n]* forbidden`)
	// The replica of the old way is still there, and has no right any more.
	testkit.EventuallyEmpty(t, func() string {
		if !forbidden.MatchString(webhook.log.String()) {
			return webhook.log.under("the replica of the old way has not tried to write its bundle")
		}
		return ""
	})
	bundles(authority("first"))
	f.upgrade(t, provided("second")...)
	bundles(authority("second"))

	f.upgrade(t, mode("certManager")...)
	bundles("")
	f.inject(t, "cert-manager-cainjector", authority("cert-manager's"))
	f.upgrade(t, append(mode("certManager"), "--set", "webhook.timeoutSeconds=9")...)
	bundles(authority("cert-manager's"))
	takeOver("cert-manager-cainjector", "third")

	f.upgrade(t, "-f", minimal)
	webhook.shows(t, "\nampbridge_certificate_trusted 1\n")
	f.upgrade(t, mode("certManager")...)
	f.upgrade(t, "-f", minimal)
}

// inject writes the CA bundle, as that manager.
func (f *fixture) inject(t *testing.T, manager, bundle string) {
	t.Helper()
	registered := f.registration(t)
	for i := range registered.Webhooks {
		registered.Webhooks[i].ClientConfig.CABundle = []byte(bundle)
	}
	_, err := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Update(
		t.Context(), registered, metav1.UpdateOptions{FieldManager: manager})
	testkit.Must(t, err)
}

// testSecretAgain: what a process creates in place of an object of the chart's is no
// conflict for the next upgrade, whatever the chart's names and labels.
func (f *fixture) testSecretAgain(t *testing.T) {
	values := []string{"-f", minimal, "--set", "nameOverride=collector"}
	f.install(t, values...)
	const name = "ampbridge-collector-webhook"
	webhook := f.startDeployment(t, name, render(t, values...), minimalPolicy(t))
	secrets := f.Client().CoreV1().Secrets(namespace)
	made, err := secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	testkit.Must(t, secrets.Delete(t.Context(), name+"-tls", metav1.DeleteOptions{}))
	testkit.EventuallyEmpty(t, func() string {
		again, err := secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
		if err != nil || again.UID == made.UID || len(again.Data) == 0 {
			return webhook.log.under(fmt.Sprint("the Secret is not back: ", err))
		}
		return ""
	})
	f.upgrade(t, append(values, "--set", "commonLabels.team=platform")...)
	again, err := secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	if again.Labels["team"] != "platform" || again.Labels["app.kubernetes.io/name"] != "collector" || len(again.Data) == 0 {
		t.Errorf("after the upgrade the Secret has labels %v and %d keys", again.Labels, len(again.Data))
	}
}
