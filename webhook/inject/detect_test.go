package inject

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
)

func TestPrometheus(t *testing.T) {
	for _, c := range []struct {
		name, labels, containers string
		want                     string
		ok                       bool
	}{
		// Labels.
		{"the operator's pod", "app.kubernetes.io/managed-by: prometheus-operator, operator.prometheus.io/name: k8s",
			"[{name: config-reloader, image: own/prometheus}, {name: prometheus, image: own/metrics}]", "prometheus", true},
		{"the operator's Alertmanager", "app.kubernetes.io/managed-by: prometheus-operator, alertmanager: main",
			"[{name: alertmanager, image: prom/alertmanager}]", "", false},
		{"the chart's pod", "app.kubernetes.io/name: prometheus, app.kubernetes.io/component: server",
			"[{name: prometheus-server-configmap-reload, image: own/prometheus}, {name: prometheus-server, image: own/metrics}]", "prometheus-server", true},
		{"the chart's labels on a container of another name", "app.kubernetes.io/name: prometheus, app.kubernetes.io/component: server",
			"[{name: main, image: prom/prometheus}]", "main", true},
		{"the chart's labels and nothing else", "app.kubernetes.io/name: prometheus, app.kubernetes.io/component: server",
			"[{name: main, image: own/metrics}]", "", false},

		// Images.
		{"quay.io", "", "[{name: a, image: 'quay.io/prometheus/prometheus:v3.1.0'}]", "a", true},
		{"Docker Hub", "", "[{name: a, image: prom/prometheus}]", "a", true},
		{"Bitnami", "", "[{name: a, image: 'docker.io/bitnami/prometheus:3'}]", "a", true},
		{"a mirror with a port, by digest", "", "[{name: a, image: 'mirror.example.com:5000/quay/prometheus:v3@sha256:00'}]", "a", true},
		{"an image of its own at the top", "", "[{name: a, image: prometheus}]", "a", true},
		{"prometheus-config-reloader", "", "[{name: a, image: quay.io/prometheus-operator/prometheus-config-reloader}]", "", false},
		{"prometheus-operator", "", "[{name: a, image: quay.io/prometheus-operator/prometheus-operator}]", "", false},
		{"node exporter", "", "[{name: a, image: quay.io/prometheus/node-exporter, args: [--web.listen-address=:9100]}]", "", false},
		{"another program of the prometheus organisation", "", "[{name: prometheus, image: quay.io/prometheus/alertmanager, args: [--config.file=/a, --storage.path=/b]}]", "", false},
		{"a tag is no name", "", "[{name: a, image: 'own/metrics:prometheus'}]", "", false},

		// Arguments.
		{"server", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --storage.tsdb.path=/b]}]", "a", true},
		{"agent", "", "[{name: a, image: own/metrics, args: [--config.file, /a, --storage.agent.path, /b]}]", "a", true},
		{"agent mode of v3", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --agent]}]", "a", true},
		{"agent mode of v2", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --enable-feature=agent, --storage.agent.path=/b]}]", "a", true},
		{"lifecycle, in the command", "", "[{name: a, image: own/metrics, command: [/run, --config.file=/a, --web.enable-lifecycle]}]", "a", true},
		{"single dashes", "", "[{name: a, image: own/metrics, args: [-config.file=/a, -storage.tsdb.path=/b]}]", "a", true},
		{"blackbox exporter", "", "[{name: a, image: prom/blackbox-exporter, args: [--config.file=/a]}]", "", false},
		{"push gateway", "", "[{name: a, image: prom/pushgateway, args: [--web.enable-lifecycle]}]", "", false},

		// Several, and the annotation.
		{"two of them", "", "[{name: a, image: prom/prometheus}, {name: b, image: prom/prometheus}]", "", true},
		{"none", "", "[{name: a, image: nginx}]", "", false},
		{"no containers", "", "[]", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			container, ok := Prometheus(podWith(t, "labels: {"+c.labels+"}", c.containers))
			if container != c.want || ok != c.ok {
				t.Errorf("%q, %t; want %q, %t", container, ok, c.want, c.ok)
			}
		})
	}
}

func TestPrometheusByAnnotation(t *testing.T) {
	for _, c := range []struct {
		name, annotation, containers string
		want                         string
		ok                           bool
		reason                       policy.Reason
		says                         string
	}{
		{"it decides between two", "b", "[{name: a, image: prom/prometheus}, {name: b, image: prom/prometheus}]", "b", true, "", ""},
		{"it wins over what is found", "b", "[{name: a, image: prom/prometheus}, {name: b, image: own/metrics}]", "b", true, "", ""},
		{"it names none", "c", "[{name: a, image: prom/prometheus}]", "", true, NoSuchContainer, policy.AnnotationContainer},
		{"empty, it says nothing", "''", "[{name: a, image: prom/prometheus}]", "a", true, "", ""},
		{"without it, there may be none", "''", "[{name: a, image: nginx}]", "", false, policy.NotPrometheus, policy.AnnotationContainer},
		{"without it, two are ambiguous", "''", "[{name: a, image: prom/prometheus}, {name: b, image: prom/prometheus}]", "", true, AmbiguousContainer, "a, b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := podWith(t, "annotations: {ampbridge.io/container: "+c.annotation+"}", c.containers)
			container, ok := Prometheus(pod)
			if container != c.want || ok != c.ok {
				t.Errorf("%q, %t; want %q, %t", container, ok, c.want, c.ok)
			}
			index, refused := chosen(pod)
			switch {
			case c.reason == "" && (refused != nil || pod.Spec.Containers[index].Name != c.want):
				t.Errorf("Inject chooses %d, %v; want %s", index, refused, c.want)
			case c.reason != "" && (refused == nil || refused.Reason != c.reason || !strings.Contains(refused.Warning, c.says)):
				t.Errorf("refused: %+v; want %s, saying %q", refused, c.reason, c.says)
			}
		})
	}
}

func podWith(t *testing.T, metadata, containers string) *Pod {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte("metadata: {name: p, namespace: monitoring, " + metadata + "}\nspec: {containers: " + containers + "}"))
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, data)
}
