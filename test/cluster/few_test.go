package cluster_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestNoControllers checks that a pod has what it needs without kube-controller-manager: service accounts,
// tokens, and the API server's CA in each namespace.
func TestNoControllers(t *testing.T) {
	c := cluster.Start(t, cluster.Options{NoControllers: true})
	testkit.Must(t, c.Namespace(t.Context(), namespace, nil))
	pod, err := c.Client().CoreV1().Pods(namespace).Create(t.Context(), newPod("bound"), metav1.CreateOptions{})
	testkit.Must(t, err)
	if _, err := c.Token(t.Context(), namespace, "default", audience, 3600, pod); err != nil {
		t.Error(err)
	}
	root, err := c.Client().CoreV1().ConfigMaps(namespace).Get(t.Context(), "kube-root-ca.crt", metav1.GetOptions{})
	if err != nil || root.Data["ca.crt"] != string(c.Config().CAData) {
		t.Errorf("kube-root-ca.crt: %v, %v", root, err)
	}
	if err := c.Namespace(t.Context(), namespace, nil); err == nil {
		t.Error("an existing namespace is created again")
	}
}
