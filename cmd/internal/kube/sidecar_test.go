package kube_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestSidecarStatus(t *testing.T) {
	const good = `{"started":"2026-01-01T00:00:00Z","destinations":[{"name":"central","valid":true,"later":1}]}`
	for _, c := range []struct {
		name   string
		ip     string
		ports  []corev1.ContainerPort
		status int
		body   string
		err    string // empty: the status is read
	}{
		{"it answers", "10.0.0.1", []corev1.ContainerPort{{ContainerPort: 19095}}, http.StatusOK, good, ""},
		{"no port", "10.0.0.1", nil, http.StatusOK, good, "the sidecar serves no status"},
		{"no address", "", []corev1.ContainerPort{{ContainerPort: 19095}}, http.StatusOK, good, "no address yet"},
		{"nothing listens", "10.0.0.1", []corev1.ContainerPort{{ContainerPort: 19095}}, http.StatusServiceUnavailable, "connection refused",
			"through the API server's proxy"},
		{"another program", "10.0.0.1", []corev1.ContainerPort{{ContainerPort: 19095}}, http.StatusOK, "<html>", "read the sidecar's status"},
		{"other JSON", "10.0.0.1", []corev1.ContainerPort{{ContainerPort: 19095}}, http.StatusOK, `{"status":"ok"}`, "started is missing"},
		{"no end", "10.0.0.1", []corev1.ContainerPort{{ContainerPort: 19095}}, http.StatusOK, good + strings.Repeat(" ", 8<<20) + "{", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if want := "/api/v1/namespaces/monitoring/pods/http:prometheus-0:19095/proxy/status"; r.URL.Path != want {
					t.Errorf("asked for %s, want %s", r.URL.Path, want)
				}
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte(c.body))
			}))
			defer server.Close()
			client, err := corev1client.NewForConfig(&rest.Config{Host: server.URL})
			testkit.Must(t, err)
			status, err := kube.SidecarStatus(t.Context(), client, &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: "monitoring", Name: "prometheus-0"},
				Spec: corev1.PodSpec{
					InitContainers: []corev1.Container{{Name: "other"}, {Name: sidecarconfig.ContainerName, Ports: c.ports}},
				},
				Status: corev1.PodStatus{PodIP: c.ip},
			})
			if c.err == "" {
				if err != nil || len(status.Destinations) != 1 || !status.Destinations[0].Valid {
					t.Errorf("got %+v, %v", status, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %q", err, c.err)
			}
		})
	}
}
