package env

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Chart describes a Prometheus pod with the structure of the prometheus-community chart: a configuration
// directory from a ConfigMap, and the config reloader next to the server.
type Chart struct {
	// Name is the name of the pod and of its ConfigMap.
	Name string
	// Namespace and ServiceAccount are the environment's if empty.
	Namespace, ServiceAccount string
	// Config is prometheus.yml. %PORT% in it is replaced by the server's port.
	Config string
	// Labels, Annotations and Args are added to the chart's own.
	Labels, Annotations map[string]string
	Args                []string
	// Change, if set, changes the pod before it is created.
	Change func(*corev1.Pod)
	// Port and ReloaderPort are ports of the host, which all pods share; 0 for free ones.
	Port, ReloaderPort int
}

// SelfScrape is a configuration with which Prometheus scrapes itself every second.
const SelfScrape = `global:
  scrape_interval: 1s
scrape_configs:
- job_name: prometheus
  static_configs:
  - targets: [127.0.0.1:%PORT%]
`

// Create creates the ConfigMap and the pod. It returns the pod as the API server stored it after admission.
func (e *Env) Create(ctx context.Context, c Chart) (*corev1.Pod, error) {
	pod, err := c.pod()
	if err != nil {
		return nil, err
	}
	client := e.Cluster.Client().CoreV1()
	config := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: c.Name},
		Data:       map[string]string{"prometheus.yml": strings.ReplaceAll(c.Config, "%PORT%", Port(pod)), "rules.yml": "groups: []\n"},
	}
	if _, err := client.ConfigMaps(pod.Namespace).Create(ctx, config, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	return client.Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
}

// SetConfig replaces the pod's prometheus.yml in its ConfigMap.
func (e *Env) SetConfig(ctx context.Context, pod *corev1.Pod, config string) error {
	maps := e.Cluster.Client().CoreV1().ConfigMaps(pod.Namespace)
	object, err := maps.Get(ctx, pod.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	object.Data["prometheus.yml"] = strings.ReplaceAll(config, "%PORT%", Port(pod))
	_, err = maps.Update(ctx, object, metav1.UpdateOptions{})
	return err
}

const portAnnotation = "env/port"

// SetPort records the port on 127.0.0.1 where the pod's server listens, for a pod that was not created from a
// [Chart].
func SetPort(pod *corev1.Pod, port int) {
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, portAnnotation, fmt.Sprint(port))
}

// Port returns the port on 127.0.0.1 where the pod's server listens.
func Port(pod *corev1.Pod) string { return pod.Annotations[portAnnotation] }

func (c Chart) pod() (*corev1.Pod, error) {
	for _, port := range []*int{&c.Port, &c.ReloaderPort} {
		if *port == 0 {
			free, err := testkit.UnusedPort()
			if err != nil {
				return nil, err
			}
			*port = free
		}
	}
	or := func(value, standard string) string {
		if value == "" {
			return standard
		}
		return value
	}
	no, yes, nobody := false, true, int64(65534)
	restricted := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:      c.Name,
			Namespace: or(c.Namespace, Namespace),
			Labels: map[string]string{
				"app.kubernetes.io/name":      "prometheus",
				"app.kubernetes.io/component": "server",
				"app.kubernetes.io/instance":  "prometheus",
			},
			Annotations: map[string]string{portAnnotation: fmt.Sprint(c.Port)},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: or(c.ServiceAccount, ServiceAccount),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsUser: &nobody, RunAsGroup: &nobody, RunAsNonRoot: &yes, FSGroup: &nobody,
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{{
				Name: ReloaderContainer, Image: "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0",
				Args: []string{
					"--watched-dir=/etc/config", fmt.Sprintf("--listen-address=127.0.0.1:%d", c.ReloaderPort),
					fmt.Sprintf("--reload-url=http://127.0.0.1:%d/-/reload", c.Port),
				},
				SecurityContext: restricted,
				VolumeMounts:    []corev1.VolumeMount{{Name: "config-volume", MountPath: "/etc/config", ReadOnly: true}},
			}, {
				Name: ServerContainer, Image: "quay.io/prometheus/prometheus:v3.15.0",
				Args: append([]string{
					"--config.file=/etc/config/prometheus.yml", "--storage.tsdb.path=/data", "--web.enable-lifecycle",
					fmt.Sprintf("--web.listen-address=127.0.0.1:%d", c.Port),
				}, c.Args...),
				SecurityContext: restricted,
				VolumeMounts: []corev1.VolumeMount{
					{Name: "config-volume", MountPath: "/etc/config"}, {Name: "storage-volume", MountPath: "/data"},
				},
			}},
			Volumes: []corev1.Volume{
				{
					Name: "config-volume",
					VolumeSource: corev1.VolumeSource{
						ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: c.Name}},
					},
				},
				{Name: "storage-volume", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
	maps.Copy(pod.Labels, c.Labels)
	maps.Copy(pod.Annotations, c.Annotations)
	if c.Change != nil {
		c.Change(pod)
	}
	return pod, nil
}

// NoReloader is a [Chart]'s Change: Prometheus itself reloads a changed configuration.
func NoReloader(pod *corev1.Pod) {
	server := pod.Spec.Containers[1]
	server.Args = append(server.Args, "--enable-feature=auto-reload-config", "--config.auto-reload-interval=1s")
	pod.Spec.Containers = []corev1.Container{server}
}

// Ready reports whether the pod's Prometheus is ready: started, with the WAL replayed and the configuration
// applied.
func Ready(ctx context.Context, pod *corev1.Pod) bool {
	body, err := get(ctx, pod, "/-/ready")
	return err == nil && strings.Contains(body, "Ready")
}

// Value returns the answer of the pod's own Prometheus to a PromQL query with one number as result. ok is
// false if the result has no number, or if there is no answer.
func Value(ctx context.Context, pod *corev1.Pod, promql string) (value float64, ok bool) {
	body, err := get(ctx, pod, "/api/v1/query?query="+url.QueryEscape(promql))
	if err != nil {
		return 0, false
	}
	var answer struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if json.Unmarshal([]byte(body), &answer) != nil || len(answer.Data.Result) != 1 {
		return 0, false
	}
	_, err = fmt.Sscan(fmt.Sprint(answer.Data.Result[0].Value[1]), &value)
	return value, err == nil
}

// Metric returns the current value of one series on /metrics of the pod's Prometheus. It is the first series
// that begins with the given name and labels.
func Metric(ctx context.Context, pod *corev1.Pod, series string) (value float64, ok bool) {
	body, err := get(ctx, pod, "/metrics")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, series) {
			_, err := fmt.Sscan(line[strings.LastIndexByte(line, ' ')+1:], &value)
			return value, err == nil
		}
	}
	return 0, false
}

// LoadedConfig returns the configuration that the pod's Prometheus has applied, in its own notation; empty if
// it does not answer.
func LoadedConfig(ctx context.Context, pod *corev1.Pod) string {
	body, err := get(ctx, pod, "/api/v1/status/config")
	if err != nil {
		return ""
	}
	var answer struct{ Data struct{ YAML string } }
	_ = json.Unmarshal([]byte(body), &answer) // Prometheus answers in JSON
	return answer.Data.YAML
}

// Reload requests the pod's Prometheus to read its configuration again. The error is its answer.
func Reload(ctx context.Context, pod *corev1.Pod) error {
	_, err := ask(ctx, http.MethodPost, pod, "/-/reload")
	return err
}

func get(ctx context.Context, pod *corev1.Pod, path string) (string, error) {
	return ask(ctx, http.MethodGet, pod, path)
}

func ask(ctx context.Context, method string, pod *corev1.Pod, path string) (string, error) {
	return testkit.Request(ctx, method, "http://127.0.0.1:"+Port(pod)+path)
}
