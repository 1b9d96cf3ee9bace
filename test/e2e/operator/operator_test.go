// Package operator_test tests a pod of prometheus-operator. Its configuration is gzipped in a Secret, and the
// operator's own reloader expands $(VAR) in it.
package operator_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestMain(m *testing.M) { kubelet.Main(m) }

// configuration returns the operator's configuration with the server itself as the only target.
func configuration(port int, job string) []byte {
	return []byte(fmt.Sprintf(`global:
  scrape_interval: 1s
  external_labels:
    prometheus: monitoring/k8s
    prometheus_replica: $(POD_NAME)
scrape_configs:
- job_name: %s
  static_configs:
  - targets: [127.0.0.1:%d]
  metric_relabel_configs:
  - {source_labels: [__name__], regex: (up|scrape_.*), action: keep}
`, job, port))
}

func gzipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(content)
	testkit.Must(t, errors.Join(err, w.Close()))
	return b.Bytes()
}

// operatorPod returns the pod that a real prometheus-operator created (see its testdata). Its ports are
// replaced by free ports of this machine. What the API server added and the web configuration are removed.
func operatorPod(t *testing.T, port int) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	testkit.DecodeJSON(t, testkit.ReadFile(t, "../../../webhook/inject/testdata/operator.in.json"), pod)
	pod.OwnerReferences = nil
	env.SetPort(pod, port)
	dropped := func(name string) bool { return strings.HasPrefix(name, "kube-api-access-") || name == "web-config" }
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return dropped(v.Name) })
	reloader, initReloader := testkit.FreePort(t), testkit.FreePort(t)
	replacer := strings.NewReplacer(
		"localhost:9090",
		fmt.Sprintf("127.0.0.1:%d", port),
		":8080",
		fmt.Sprintf("127.0.0.1:%d", reloader),
		":8081",
		fmt.Sprintf("127.0.0.1:%d", initReloader),
	)
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return dropped(m.Name) })
			c.Args = slices.DeleteFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--web.config.file") })
			for j := range c.Args {
				c.Args[j] = replacer.Replace(c.Args[j])
			}
			if c.Name == "prometheus" {
				c.Args = append(c.Args, fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port))
				c.Ports[0].ContainerPort = int32(port)
				for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
					probe.HTTPGet.Port = intstr.FromInt(port)
					probe.HTTPGet.Host = "127.0.0.1"
				}
				c.StartupProbe.PeriodSeconds = 1
			}
		}
	}
	return pod
}

func TestOperatorsSecret(t *testing.T) {
	ctx := t.Context()
	e := env.Start(t, env.Options{})
	testkit.Must(t, e.SetPolicy(
		strings.Replace(e.Policy(), "serviceAccounts: [prometheus]", "serviceAccounts: [prometheus-k8s]", 1)))
	testkit.Must(t, e.CreateServiceAccount(ctx, env.Namespace, "prometheus-k8s"))
	if out, err := e.Sync(ctx); err != nil {
		t.Fatal(out, err)
	}
	port := testkit.FreePort(t)
	client := e.Cluster.Client().CoreV1()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "prometheus-k8s"},
		Data:       map[string][]byte{"prometheus.yaml.gz": gzipped(t, configuration(port, "first"))},
	}
	assets := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "prometheus-k8s-tls-assets-0"}}
	for _, object := range []*corev1.Secret{secret, assets} {
		_, err := client.Secrets(env.Namespace).Create(ctx, object, metav1.CreateOptions{})
		testkit.Must(t, err)
	}
	rules := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "prometheus-k8s-rulefiles-0"}}
	_, err := client.ConfigMaps(env.Namespace).Create(ctx, rules, metav1.CreateOptions{})
	testkit.Must(t, err)
	// The webhook reads its policy again by itself: a moment later, not at once.
	testkit.Eventually(t, "the operator's pod is injected", func() bool {
		dry, err := client.Pods(env.Namespace).Create(ctx, operatorPod(t, port), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		testkit.Must(t, err)
		return env.Injected(dry)
	})
	pod, err := client.Pods(env.Namespace).Create(ctx, operatorPod(t, port), metav1.CreateOptions{})
	testkit.Must(t, err)
	p := e.PrometheusOf(pod)
	p.StartFor(t)
	arrives := func(job string) {
		t.Helper()
		promql := fmt.Sprintf(`up{job=%q,cluster=%q,prometheus_replica=%q}`, job, env.ClusterName, pod.Name)
		p.Eventually(t, "samples of job "+job, func() bool {
			found, err := e.Cloud.Query(ctx, e.Workspace.ID, promql)
			return err == nil && len(found) == 1
		})
	}
	arrives("first")

	// When the operator changes its Secret, the change must be live together with the block.
	secret.Data["prometheus.yaml.gz"] = gzipped(t, configuration(port, "second"))
	_, err = client.Secrets(env.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	testkit.Must(t, err)
	arrives("second")
	if n := p.Pod.Container("prometheus").Restarts(); n != 0 {
		t.Errorf("Prometheus restarted %d times", n)
	}
}
