package chart

import (
	"encoding/base64"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const caBundle = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

// What the chart registers is what package registration registers, whose own
// tests say that it is right.
func TestRegistration(t *testing.T) {
	for _, test := range []struct {
		name   string
		values string
		want   registration.Options
	}{
		{"defaults", "{}", registration.Options{ExcludedNamespaces: []string{namespace}}},
		{"all set", `
webhook: {failurePolicy: Fail, timeoutSeconds: 10, excludedNamespaces: [istio-system, kube-system, a]}
certificates: {mode: certManager}
`, registration.Options{FailurePolicy: admissionv1.Fail, TimeoutSeconds: 10, ExcludedNamespaces: []string{"a", "istio-system", namespace}}},
		{"the user's certificate", `
certificates: {mode: provided, provided: {secretName: own, caBundle: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"}}
`, registration.Options{
			ExcludedNamespaces: []string{namespace},
			ClientConfig:       admissionv1.WebhookClientConfig{CABundle: []byte(caBundle)},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got admissionv1.MutatingWebhookConfiguration
			into(
				t,
				render(t, "-f", minimal, "-f", valuesFile(t, test.values)).get(t, "MutatingWebhookConfiguration", registration.DefaultName),
				&got,
			)
			test.want.ClientConfig.Service = &admissionv1.ServiceReference{
				Namespace: namespace,
				Name:      "ampbridge-webhook",
				Port:      new(int32(443)),
			}
			want, err := registration.New(test.want)
			testkit.Must(t, err)
			for _, all := range []map[string]string{got.Labels, got.Annotations} {
				maps.DeleteFunc(all, func(key, _ string) bool { return key != registration.EnforcerOptOut })
			}
			if diff := cmp.Diff(want, &got); diff != "" {
				t.Errorf("differs from package registration, -want +got:\n%s", diff)
			}
			var gotPolicy admissionv1.ValidatingWebhookConfiguration
			into(
				t,
				render(t, "-f", minimal, "-f", valuesFile(t, test.values)).get(t, "ValidatingWebhookConfiguration", registration.DefaultName),
				&gotPolicy,
			)
			wantPolicy, err := registration.NewPolicy(test.want, namespace, "ampbridge-policy")
			testkit.Must(t, err)
			gotPolicy.Labels, gotPolicy.Annotations = nil, nil
			if diff := cmp.Diff(wantPolicy, &gotPolicy); diff != "" {
				t.Errorf("differs from package registration, -want +got:\n%s", diff)
			}
		})
	}
}

// The registration's labels and annotations are the user's beside the chart's.
func TestRegistrationsMetadata(t *testing.T) {
	own := render(t, "-f", minimal).get(t, "MutatingWebhookConfiguration", registration.DefaultName)
	others := render(t, "-f", minimal, "-f", valuesFile(t, `
certificates: {mode: certManager}
webhook:
  registration:
    labels: {admissions.enforcer/disabled: "false", team: platform}
    annotations: {example.com/owner: platform}
`)).get(t, "MutatingWebhookConfiguration", registration.DefaultName)
	for what, test := range map[string]struct{ before, after, want map[string]string }{
		"labels": {own.GetLabels(), others.GetLabels(), map[string]string{registration.EnforcerOptOut: "false", "team": "platform"}},
		"annotations": {own.GetAnnotations(), others.GetAnnotations(), map[string]string{
			registration.EnforcerOptOut: "true", "example.com/owner": "platform",
			"cert-manager.io/inject-ca-from": namespace + "/ampbridge-webhook-cert",
		}},
	} {
		if test.before[registration.EnforcerOptOut] != "true" {
			t.Errorf("%s: by default the registration does not opt out of the enforcer: %v", what, test.before)
		}
		want := maps.Clone(test.before)
		maps.Copy(want, test.want)
		if diff := cmp.Diff(want, test.after); diff != "" {
			t.Errorf("%s, -want +got:\n%s", what, diff)
		}
	}
}

// Every registration of a webhook opts out of AKS's enforcer, twice.
func TestEveryRegistrationOptsOut(t *testing.T) {
	for name, args := range forms {
		found := 0
		for _, object := range render(t, args...) {
			if !strings.HasSuffix(object.GetKind(), "WebhookConfiguration") {
				continue
			}
			found++
			for what, all := range map[string]map[string]string{"label": object.GetLabels(), "annotation": object.GetAnnotations()} {
				if all[registration.EnforcerOptOut] != "true" {
					t.Errorf("%s: %s %s has no %s %s", name, object.GetKind(), object.GetName(), what, registration.EnforcerOptOut)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s: no registration", name)
		}
	}
}

// The match condition stands in a file, so that the template stays readable.
func TestMatchConditionFile(t *testing.T) {
	testkit.Golden(t, filepath.Join(chartDir, "files", "can-be-prometheus.cel"), registration.CanBePrometheus+"\n")
}

func TestCertManagerInjectsTheCA(t *testing.T) {
	all := render(t, "-f", minimal, "--set", "certificates.mode=certManager")
	got := all.get(t, "MutatingWebhookConfiguration", registration.DefaultName).GetAnnotations()["cert-manager.io/inject-ca-from"]
	certificate := all.get(t, "Certificate", "ampbridge-webhook-cert")
	want := namespace + "/" + certificate.GetName()
	if got != want {
		t.Errorf("cert-manager.io/inject-ca-from is %q, want %q", got, want)
	}
	if got := all.get(t, "ValidatingWebhookConfiguration", registration.DefaultName).GetAnnotations()["cert-manager.io/"+
		"inject-ca-from"]; got != want {
		t.Errorf("cert-manager.io/inject-ca-from of the policy's registration is %q, want %q", got, want)
	}
	secret, _, err := unstructured.NestedString(certificate.Object, "spec", "secretName")
	testkit.Must(t, err)
	mounted := podOf(t, all.get(t, "Deployment", "ampbridge-webhook")).Volumes
	if !slices.ContainsFunc(mounted, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == secret }) {
		t.Errorf("the webhook does not mount the Secret %s: %+v", secret, mounted)
	}
	if s := all.find("Secret", "ampbridge-webhook-tls"); s != nil {
		t.Error("the chart makes a Secret that nobody uses")
	}
}

// What test/certmanager has cert-manager's own controllers work on is what the
// chart makes.
func TestCertManagersObjects(t *testing.T) {
	text := testkit.ReadFile(t, "../certmanager/testdata/certificates.yaml")
	want := parse(t, text)
	var got objects
	for _, object := range render(t, "-f", minimal, "--set", "certificates.mode=certManager") {
		if object.GroupVersionKind().Group == "cert-manager.io" {
			object.SetLabels(nil)
			got = append(got, object)
		}
	}
	for _, all := range []objects{want, got} {
		slices.SortFunc(all, func(a, b *unstructured.Unstructured) int {
			return strings.Compare(a.GetKind()+a.GetName(), b.GetKind()+b.GetName())
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-tested +made:\n%s", diff)
	}
}

func TestProvidedBundleIsPEM(t *testing.T) {
	// Helm encodes it, so nobody has to, and nobody must.
	_, stderr, err := helm(
		t,
		"template",
		release,
		chartDir,
		"-f",
		minimal,
		"--set",
		"certificates.mode=provided",
		"--set",
		"certificates.provided.secretName=own",
		"--set",
		"certificates.provided.caBundle="+base64.StdEncoding.EncodeToString([]byte(caBundle)),
	)
	if err == nil {
		t.Error("a bundle in base64 is taken for PEM")
	}
	names(t, stderr, "/certificates/provided/caBundle")
}
