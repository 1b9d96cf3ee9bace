// Package webhooktest has what tests of the webhook with a real API server share:
// its registration, the webhook in the test's own process, and a Prometheus that it
// injects.
package webhooktest

import (
	"context"
	"log/slog"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// Image is the sidecar image of a webhook that [Run] runs.
const Image = "registry.example.com/ampbridge:v1"

// Register registers a webhook that will listen on a loopback address, and writes
// its serving certificate to a directory. Pods of the excluded namespaces are never
// sent to it.
func Register(t testing.TB, c *cluster.Cluster, addr, certs string, excluded ...string) {
	t.Helper()
	ca, err := servingcert.Write(certs, "127.0.0.1")
	testkit.Must(t, err)
	object, err := registration.New(registration.Options{
		ClientConfig:       admissionv1.WebhookClientConfig{URL: new("https://" + addr), CABundle: ca},
		ExcludedNamespaces: excluded,
	})
	testkit.Must(t, err)
	Create(t, c, object)
}

// Create creates a registration.
func Create(t testing.TB, c *cluster.Cluster, object *admissionv1.MutatingWebhookConfiguration) {
	t.Helper()
	client := c.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	_, err := client.Create(t.Context(), object, metav1.CreateOptions{})
	testkit.Must(t, err)
}

// Run runs a webhook until the test ends. Its image is [Image], and the addresses of
// its health checks and metrics are free ones. Without a logger it logs nothing.
func Run(t testing.TB, o webhook.Options) {
	t.Helper()
	o.Image, o.HealthAddr, o.MetricsAddr = Image, testkit.FreeAddr(t), testkit.FreeAddr(t)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	testkit.Run(t, "webhook", func(ctx context.Context) error { return webhook.Run(ctx, o) })
}

// Prometheus returns the pod of a Prometheus, with its configuration in a ConfigMap.
func Prometheus(serviceAccount string) corev1.PodSpec {
	return corev1.PodSpec{
		ServiceAccountName: serviceAccount,
		Containers: []corev1.Container{{
			Name:         "prometheus",
			Image:        "quay.io/prometheus/prometheus:v3.15.0",
			Args:         []string{"--config.file=/etc/p/prometheus.yml", "--config.auto-reload"},
			VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/p"}},
		}},
		Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{
			ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "p"}},
		}}},
	}
}

// Injected reports whether a pod has the sidecar.
func Injected(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == sidecarconfig.ContainerName
	})
}
