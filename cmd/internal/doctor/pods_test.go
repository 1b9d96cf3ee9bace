package doctor

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The command that checks Prometheus's configuration names the file that this Prometheus
// loads.
func TestCheckConfig(t *testing.T) {
	const prefix = "kubectl exec --namespace m p-0 --container prometheus -- promtool check config "
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"a flag", []string{"--config.file=/etc/p/p.yml"}, prefix + "/etc/p/p.yml"},
		{"two arguments", []string{"--config.file", "/etc/p/p.yml"}, prefix + "/etc/p/p.yml"},
		{"no flag", []string{"--web.enable-lifecycle"}, prefix + "/prometheus/prometheus.yml"},
		{"the image's own", nil, prefix + "/etc/prometheus/prometheus.yml"},
		{"a variable", []string{"--config.file=$(FILE)"}, ""},
	} {
		container := corev1.Container{Name: "prometheus", Image: "prom/prometheus:v3.1.0", Args: c.args}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "m", Name: "p-0"},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "other", Image: "nginx"}, container}},
		}
		if got := checkConfig(&runningPod{Pod: pod, container: &container}).String(); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
