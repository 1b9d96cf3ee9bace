package kube_test

import (
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The policy is found by the chart's label, whatever names the installation has, or in the
// ConfigMap that the webhook mounts.
func TestPolicies(t *testing.T) {
	const namespace = "ampbridge-system"
	object := func(name, key string, labels map[string]string) *corev1.ConfigMap {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}, Data: map[string]string{key: name},
		}
	}
	ours := map[string]string{
		"ampbridge.io/chart": "ampbridge", "app.kubernetes.io/name": "collector", "app.kubernetes.io/component": "webhook",
	}
	webhook := func(configMap string) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bridge-webhook", Labels: ours}}
		d.Spec.Template.Spec.Volumes = []corev1.Volume{{Name: "tls"}, {Name: "policy"}}
		d.Spec.Template.Spec.Volumes[1].ConfigMap = &corev1.ConfigMapVolumeSource{}
		d.Spec.Template.Spec.Volumes[1].ConfigMap.Name = configMap
		return d
	}
	for _, c := range []struct {
		name    string
		objects []runtime.Object
		want    []string
	}{
		{"nothing", nil, nil},
		{"the chart's", []runtime.Object{object("bridge-policy", "policy.yaml", ours), webhook("bridge-policy")}, []string{"bridge-policy"}},
		{"beside the copy", []runtime.Object{
			object("bridge-policy", "policy.yaml", ours), object("ampbridge-policy-accepted", "accepted.yaml", ours), webhook("bridge-policy"),
		}, []string{"bridge-policy"}},
		{"the user's own", []runtime.Object{
			object("own", "policy.yaml", nil), object("another", "policy.yaml", nil), object("ampbridge-policy-accepted", "accepted.yaml", ours),
			webhook("own"),
		}, []string{"own"}},
		{"the user's own, which is gone", []runtime.Object{webhook("own")}, nil},
		{"the user's own, without the key", []runtime.Object{object("own", "values.yaml", nil), webhook("own")}, nil},
	} {
		found, err := kube.Policies(t.Context(), fake.NewClientset(c.objects...), namespace)
		testkit.Must(t, err)
		var names []string
		for _, p := range found {
			names = append(names, p.ConfigMap)
			if p.Text != p.ConfigMap {
				t.Errorf("%s: the text of %s is %q", c.name, p.ConfigMap, p.Text)
			}
		}
		if !slices.Equal(names, c.want) {
			t.Errorf("%s: found %q, want %q", c.name, names, c.want)
		}
	}
}
