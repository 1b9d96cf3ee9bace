package chart

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// testReach has the API server call a webhook that is not there, so that a call
// shows: it is an error under failurePolicy Fail, and passes under Ignore. A
// match condition that stumbles over a pod would be an error of another kind.
func (f *fixture) testReach(t *testing.T) {
	for _, name := range []string{"kube-system", namespace} {
		f.label(t, name, `"enabled"`)
		defer f.label(t, name, "null")
	}
	testkit.Must(t, f.Namespace(t.Context(), "annotated", map[string]string{"ampbridge.io/injection": "annotated"}))
	testkit.Must(t, f.Namespace(t.Context(), "unlabelled", nil))

	const image = "quay.io/prometheus/prometheus:v3.1.0"
	tests := []struct {
		name, namespace string
		pod             *corev1.Pod
		called          bool
	}{
		{"Prometheus", "monitoring", pod(image, nil, nil), true},
		{"Prometheus, asked for", "annotated", pod(image, nil, nil), true},
		{
			"Prometheus with other labels and annotations",
			"monitoring",
			pod(image, map[string]string{"a": "b"}, map[string]string{"c": "d"}),
			true,
		},
		{"an image of the user's own that asks", "monitoring", pod("metrics", nil, map[string]string{"ampbridge.io/inject": "true"}), true},
		{"the operator's label", "monitoring", pod("metrics", map[string]string{"operator.prometheus.io/name": "k8s"}, nil), true},
		{"no labels, no annotations, no arguments", "monitoring", pod("nginx", nil, nil), false},
		{
			"other labels and annotations",
			"monitoring",
			pod("nginx", map[string]string{"app.kubernetes.io/name": "nginx"}, map[string]string{"ampbridge.io/inject": "false"}),
			false,
		},
		{"an exporter", "monitoring", pod("quay.io/prometheus/blackbox-exporter", nil, nil, "--config.file=/etc/blackbox.yml"), false},
		{"an unlabelled namespace", "unlabelled", pod(image, nil, nil), false},
		{"the chart's own namespace, labelled by mistake", namespace, pod(image, nil, nil), false},
		{"kube-system, labelled by mistake", "kube-system", pod(image, nil, nil), false},
	}
	for _, failurePolicy := range []string{"Fail", "Ignore"} {
		f.upgrade(t, "-f", minimal, "--set", "webhook.failurePolicy="+failurePolicy)
		create := func(namespace string, pod *corev1.Pod) error {
			_, err := f.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		}
		testkit.EventuallyEmpty(t, func() string {
			if called := create("monitoring", tests[0].pod) != nil; called != (failurePolicy == "Fail") {
				return "the API server has not heard of failurePolicy " + failurePolicy
			}
			return ""
		})
		for _, test := range tests {
			err := create(test.namespace, test.pod)
			switch called := apierrors.IsInternalError(err) && strings.Contains(err.Error(), `failed calling webhook "pods-`); {
			case called != (test.called && failurePolicy == "Fail"):
				t.Errorf("%s, %s: called is %t: %v", failurePolicy, test.name, called, err)
			case !called && err != nil:
				t.Errorf("%s, %s: %v", failurePolicy, test.name, err)
			}
		}
	}
	for _, name := range []string{"annotated", "unlabelled"} {
		testkit.Must(t, f.Client().CoreV1().Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
}

func (f *fixture) label(t *testing.T, namespace, value string) {
	t.Helper()
	patch := fmt.Appendf(nil, `{"metadata":{"labels":{"ampbridge.io/injection":%s}}}`, value)
	_, err := f.Client().CoreV1().Namespaces().Patch(t.Context(), namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	testkit.Must(t, err)
}

// pod passes the restricted standard of the chart's own namespace.
func pod(image string, labels, annotations map[string]string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "pod", Labels: labels, Annotations: annotations},
		Spec: corev1.PodSpec{
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot: new(true), SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: "main", Image: image, Args: args,
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
		},
	}
}
