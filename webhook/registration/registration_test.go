package registration_test

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

func TestNew(t *testing.T) {
	for _, test := range []struct {
		name    string
		options registration.Options
	}{
		{"service", registration.Options{
			ClientConfig: admissionv1.WebhookClientConfig{
				Service:  &admissionv1.ServiceReference{Namespace: "ampbridge", Name: "ampbridge-webhook", Port: new(int32(443))},
				CABundle: []byte("CA"),
			},
			ExcludedNamespaces: []string{"ampbridge"},
			Labels:             map[string]string{"app.kubernetes.io/name": "ampbridge"},
		}},
		{"url", registration.Options{
			Name:           "other",
			ClientConfig:   admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:9443/"), CABundle: []byte("CA")},
			FailurePolicy:  admissionv1.Fail,
			TimeoutSeconds: 10,
			// kube-system stands in the selector once.
			ExcludedNamespaces: []string{"kube-system"},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			configuration, err := registration.New(test.options)
			testkit.Must(t, err)
			got, err := yaml.Marshal(configuration)
			testkit.Must(t, err)
			testkit.Golden(t, "testdata/"+test.name+".want.yaml", got)
		})
	}
}

// Two registrations made of the same base do not share it.
func TestNewCopiesTheBase(t *testing.T) {
	base := admissionv1.WebhookClientConfig{
		Service: &admissionv1.ServiceReference{Namespace: "ampbridge", Name: "webhook", Path: new("/base")},
	}
	configuration, err := registration.New(registration.Options{ClientConfig: base})
	testkit.Must(t, err)
	var paths []string
	for _, w := range configuration.Webhooks {
		paths = append(paths, *w.ClientConfig.Service.Path)
	}
	want := []string{"/base/pods/enabled", "/base/pods/annotated", "/base/serviceaccounts/enabled", "/base/serviceaccounts/annotated"}
	testkit.Equal(t, "paths", want, paths)
	if *base.Service.Path != "/base" {
		t.Errorf("the base's path became %s", *base.Service.Path)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		client admissionv1.WebhookClientConfig
	}{
		{"neither", admissionv1.WebhookClientConfig{}},
		{"both", admissionv1.WebhookClientConfig{URL: new("https://127.0.0.1:9443"), Service: &admissionv1.ServiceReference{}}},
		{"not encrypted", admissionv1.WebhookClientConfig{URL: new("http://127.0.0.1:9443")}},
		{"no host", admissionv1.WebhookClientConfig{URL: new("https:///pods")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if configuration, err := registration.New(registration.Options{ClientConfig: test.client}); err == nil {
				t.Errorf("got %v, want an error", configuration)
			}
		})
	}
}
