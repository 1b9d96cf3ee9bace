package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func newPod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "example.com/main"}}},
	}
}

func newReview() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} }

// get decodes the answer of OIDC at path.
func get(t *testing.T, c *cluster.Cluster, path string, into any) {
	t.Helper()
	w := httptest.NewRecorder()
	c.OIDC().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("GET %s: got %d: %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
}

// eventuallyForbidden creates the pod as a dry run until the API server forbids it with a message that
// contains want. The admission plugins see a new object with a short delay.
func eventuallyForbidden(t *testing.T, c *cluster.Cluster, namespace string, pod *corev1.Pod, want string) {
	t.Helper()
	testkit.EventuallyEmpty(t, func() string {
		_, err := c.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if apierrors.IsForbidden(err) && strings.Contains(err.Error(), want) {
			return ""
		}
		return fmt.Sprintf("pod %s: got %v, want it forbidden: %s", pod.Name, err, want)
	})
}
