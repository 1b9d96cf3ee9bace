package admission_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	jsonv2 "github.com/go-json-experiment/json"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// The match condition must select every pod that detection accepts, whatever members it lacks. A pod that the
// condition misses would be skipped without any message.
func (f *fixture) testMatchCondition(t *testing.T) {
	const namespace = "test-match"
	webhooktest.Namespace(t, f.Cluster, namespace)
	images := []string{
		"prometheus",
		"quay.io/prometheus/prometheus:v3",
		"localhost:5000/prometheus",
		"r.example.com/prometheus@sha256:" + strings.Repeat("0", 64),
		"quay.io/prometheus/prometheus:v3@sha256:" + strings.Repeat(
			"0",
			64,
		),
		"example.com/prometheus-fork:v1",
		"quay.io/prometheus/prometheus-linux-arm64:v3",
		"quay.io/prometheus/node-exporter",
		"prometheus:v1/other",
		"odd\nimage/prometheus:a:b",
		"nginx",
	}
	programs := []corev1.Container{
		{},
		{Args: []string{"--config.file=/c.yml"}},
		{Args: []string{"--config.file", "/c.yml", "--storage.tsdb.path=/d"}},
		{Args: []string{"-config.file=/c.yml", "-web.enable-lifecycle"}},
		{Args: []string{"-config.file=/c.yml", "-web.enable-admin-api"}},
		{Args: []string{"--config.file=/c.yml", "--query.timeout=2m"}},
		{Args: []string{"--config.file=/c.yml", "--rules.alert.resend-delay=1m"}},
		{Args: []string{"--config.file=/c.yml", "--storage.remote.flush-deadline=1m"}},
		{Args: []string{"--config.file=/c.yml", "--config.auto-reload-interval=1m"}},
		{Args: []string{"--config.file=/c.yml", "--enable-feature=x,exemplar-storage,y"}},
		{Args: []string{"--config.file", "/c.yml", "--enable-feature", "x,agent"}},
		{Args: []string{"--config.file=/etc/prometheus/c.yml", "--web.external-url=https://p"}},
		{Command: []string{"/run", "--config.file", "prometheus.yml"}},
		{Command: []string{"promtool", "check", "config", "/c.yml"}},
		{Command: []string{"/bin/prometheus", "--config.file=/c.yml", "--storage.agent.path=/d"}},
		{Command: []string{"/bin/metrics", "--config.file=/c.yml"}, Args: []string{"--web.console.libraries=/l"}},
		{Command: []string{"/bin/sh", "-c", "exec prometheus --config.file=/c.yml --storage.tsdb.path=/d"}},
		{Args: []string{"--storage.path=/d", "--config.file=/c.yml"}},
	}
	labels := []map[string]string{
		nil, {"app": "x"},
		{"app.kubernetes.io/managed-by": "prometheus-operator", "operator.prometheus.io/name": "k8s"},
		{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"},
	}
	annotations := []map[string]string{nil, {"x": "y"}, {policy.AnnotationContainer: "main"}, {policy.AnnotationInject: "true"}}
	names := []string{"main", "prometheus", "prometheus-server"}

	accepted := map[string]*corev1.Pod{}
	n := 0
	for _, image := range images {
		for _, program := range programs {
			for _, label := range labels {
				for _, annotation := range annotations {
					// All combinations of the relevant members, with the container names in turns.
					c := *program.DeepCopy()
					c.Name, c.Image = names[n%len(names)], image
					pod := &corev1.Pod{
						ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("pod-%d", n), Labels: label, Annotations: annotation},
						Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "first", Image: "nginx"}, c}},
					}
					n++
					if !detects(t, pod) {
						continue
					}
					accepted[pod.Name] = pod
					// It does not matter if the API server accepts the pod in the end.
					_, _ = f.tryPod(t, namespace, pod, true)
				}
			}
		}
	}
	if len(accepted) < 100 || len(accepted) == n {
		t.Fatalf("detection accepts %d of %d pods, so the table proves nothing", len(accepted), n)
	}
	eventuallyLogged := func() (missing []string) {
		asked := f.decisions(t)
		for name := range accepted {
			if asked[namespace+"/"+name] == "" {
				missing = append(missing, name)
			}
		}
		return missing
	}
	for _, name := range eventuallyLogged() {
		t.Errorf("detection accepts, but the webhook is not called: %+v %+v", accepted[name].ObjectMeta, accepted[name].Spec.Containers[1])
	}
}

// detects reports whether the webhook's own code detects Prometheus in the pod.
func detects(t *testing.T, pod *corev1.Pod) bool {
	t.Helper()
	text, err := json.Marshal(pod)
	testkit.Must(t, err)
	var view inject.Pod
	testkit.Must(t, jsonv2.Unmarshal(text, &view))
	_, ok := inject.Prometheus(&view)
	return ok || inject.Resembles(&view) != ""
}
