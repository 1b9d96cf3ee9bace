package inject

import (
	"strings"
	"testing"

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
			"[{name: prometheus-server-configmap-reload, image: own/prometheus}, {name: prometheus-server, image: own/metrics}]",
			"prometheus-server", true},
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
		{"another program of the prometheus organisation", "", "[{name: prometheus, image: quay.io/prometheus/alertmanager, args: " +
			"[--config.file=/a, --storage.path=/b]}]", "", false},
		{"a tag is not a name", "", "[{name: a, image: 'own/metrics:prometheus'}]", "", false},

		// Arguments.
		{"server", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --storage.tsdb.path=/b]}]", "a", true},
		{"agent", "", "[{name: a, image: own/metrics, args: [--config.file, /a, --storage.agent.path, /b]}]", "a", true},
		{"agent mode of v3", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --agent]}]", "a", true},
		{"agent mode of v2", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --enable-feature=agent, " +
			"--storage.agent.path=/b]}]", "a", true},
		{"the administration's API, in the command", "", "[{name: a, image: own/metrics, command: [/run, --config.file=/a, " +
			"--web.enable-admin-api]}]", "a", true},
		{"lifecycle alone, in the command", "", "[{name: a, image: own/metrics, command: [/run, --config.file=/a, " +
			"--web.enable-lifecycle]}]", "", false},
		{"a forwarder of alerts", "", "[{name: a, image: timonwong/prometheus-webhook-dingtalk, args: [--web.listen-address=:8060, " +
			"--config.file=/config/config.yaml, --web.enable-lifecycle]}]", "", false},
		{"limits of queries", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --query.timeout=2m]}]", "a", true},
		{"rules", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --rules.alert.resend-delay=1m]}]", "a", true},
		{"limits of remote read", "", "[{name: a, image: own/metrics, args: [--config.file=/a, " +
			"--storage.remote.read-max-bytes-in-frame=1]}]", "a", true},
		{"a feature", "", "[{name: a, image: own/metrics, args: [--config.file=/a, '--enable-feature=x,exemplar-storage']}]", "a", true},
		{"a feature, as two arguments", "", "[{name: a, image: own/metrics, args: [--config.file=/a, --enable-feature, agent]}]", "a", true},
		{"a feature of Alertmanager", "", "[{name: a, image: own/alerts, args: [--config.file=/a, --enable-feature=utf8-strict-mode, " +
			"--storage.path=/b]}]", "", false},
		{"Tempo", "", "[{name: a, image: own/traces, args: [-config.file=/a, -storage.trace.backend=s3]}]", "", false},
		{"Mimir", "", "[{name: a, image: own/mimir, args: [-config.file=/a, -blocks-storage.tsdb.dir=/b, -querier.timeout=1m]}]", "", false},
		{"single dashes", "", "[{name: a, image: own/metrics, args: [-config.file=/a, -storage.tsdb.path=/b]}]", "a", true},
		{"blackbox exporter", "", "[{name: a, image: prom/blackbox-exporter, args: [--config.file=/a]}]", "", false},
		{"push gateway", "", "[{name: a, image: prom/pushgateway, args: [--web.enable-lifecycle]}]", "", false},

		{"an image for one platform", "", "[{name: a, image: 'quay.io/prometheus/prometheus-linux-amd64:v3.5.0'}]", "a", true},
		{"and for another, by digest", "", "[{name: a, image: 'mirror.example.com/prometheus-linux-armv7@sha256:00'}]", "a", true},

		// promtool is not a server.
		{"promtool", "", "[{name: a, image: prom/prometheus, command: [promtool, check, config, /a]}]", "", false},
		{"promtool by its path, arguments apart", "", "[{name: a, image: prom/prometheus, command: [/bin/promtool], args: [check, " +
			"config, --config.file=/a, --storage.tsdb.path=/b]}]", "", false},
		{"promtool in a script", "", "[{name: a, image: prom/prometheus, command: [sh, -c, 'promtool check config " +
			"/etc/prometheus/prometheus.yml']}]", "", false},
		{"promtool twice in a script", "", "[{name: a, image: prom/prometheus, command: [/bin/sh, -euo, pipefail, -c], args: ['cd " +
			"/etc/prometheus && promtool check config a && /bin/promtool check rules b']}]", "", false},
		{"promtool before Prometheus", "", "[{name: a, image: prom/prometheus, command: [sh, -c, 'promtool check config /a && exec " +
			"/bin/prometheus --config.file=/a']}]", "a", true},
		{"promtool before an unknown program", "", "[{name: a, image: prom/prometheus, command: [sh, -c, 'promtool check config /a && " +
			"$RUN']}]", "a", true},

		// Several containers, and the annotation.
		{"one that is certain, and one that only has the image", "", "[{name: a, image: prom/prometheus, command: [sh, -c, 'while " +
			"true; do sleep 1; done']}, {name: b, image: prom/prometheus, args: [--config.file=/a]}]", "b", true},
		{"one that is certain, and promtool", "", "[{name: a, image: prom/prometheus, command: [promtool, debug, all]}, {name: b, " +
			"image: own/metrics, args: [--config.file=/a, --storage.tsdb.path=/b]}]", "b", true},
		{"one that is certain, and a forwarder of alerts", "", "[{name: a, image: own/forwarder, args: [--config.file=/a, " +
			"--web.enable-lifecycle]}, {name: b, image: prom/prometheus}]", "b", true},
		{"the image alone, with a script of its own", "", "[{name: a, image: prom/prometheus, command: [sh, -c, 'a; b']}]", "a", true},
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
		{"it overrides what is found", "b", "[{name: a, image: prom/prometheus}, {name: b, image: own/metrics}]", "b", true, "", ""},
		{"it names none", "c", "[{name: a, image: prom/prometheus}]", "", true, NoSuchContainer, policy.AnnotationContainer},
		{"empty, it has no effect", "''", "[{name: a, image: prom/prometheus}]", "a", true, "", ""},
		{"without it, there may be none", "''", "[{name: a, image: nginx}]", "", false, policy.NotPrometheus, policy.AnnotationContainer},
		{"without it, two are ambiguous", "''", "[{name: a, image: prom/prometheus}, {name: b, image: prom/prometheus}]", "", true,
			AmbiguousContainer, "a, b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := podWith(t, "annotations: {ampbridge.io/container: "+c.annotation+"}", c.containers)
			container, ok := Prometheus(pod)
			if container != c.want || ok != c.ok {
				t.Errorf("%q, %t; want %q, %t", container, ok, c.want, c.ok)
			}
			index, refused := selectContainer(pod)
			switch {
			case c.reason == "" && (refused != nil || pod.Spec.Containers[index].Name != c.want):
				t.Errorf("Inject chooses %d, %v; want %s", index, refused, c.want)
			case c.reason != "" && (refused == nil || refused.Reason != c.reason || !strings.Contains(refused.Warning, c.says)):
				t.Errorf("refused: %+v; want %s, saying %q", refused, c.reason, c.says)
			}
		})
	}
}

// If a container could be Prometheus without proof, the warning names it. Other programs are not
// named.
func TestResembles(t *testing.T) {
	for _, c := range []struct{ name, containers, want string }{
		{"a configuration of Prometheus's name", "[{name: x, image: nginx}, {name: a, image: own/metrics, args: " +
			"[--config.file=/etc/prometheus/p.yml]}]", "a"},
		{"as two arguments", "[{name: a, image: own/metrics, command: [/run, -config.file, prometheus.yaml]}]", "a"},
		{"lifecycle", "[{name: a, image: own/metrics, args: [--config.file=/a, --web.enable-lifecycle]}]", "a"},
		{"no configuration", "[{name: a, image: own/metrics, args: [--web.enable-lifecycle]}]", ""},
		{"any other configuration", "[{name: a, image: own/metrics, args: [--config.file=/a]}]", ""},
		{"a flag instead of the file", "[{name: a, image: own/metrics, args: [--config.file, --prometheus]}]", ""},
		{"a forwarder of alerts", "[{name: a, image: timonwong/prometheus-webhook-dingtalk, args: [--config.file=/a, " +
			"--web.enable-lifecycle]}]", ""},
		{"an exporter", "[{name: a, image: own/mysqld-exporter, args: [--config.file=/etc/prometheus/a]}]", ""},
		{"promtool", "[{name: a, image: own/metrics, command: [promtool, --config.file=/etc/prometheus/a]}]", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := podWith(t, "labels: {}", c.containers)
			if got := Resembles(pod); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if _, ok := Prometheus(pod); ok {
				t.Error("it is known to be Prometheus, so this test proves nothing")
			}
		})
	}
}

func podWith(t *testing.T, metadata, containers string) *Pod {
	t.Helper()
	text := "metadata: {name: p, namespace: monitoring, " + metadata + "}\nspec: {containers: " + containers + "}"
	return decode(t, fromYAML(t, text))
}
