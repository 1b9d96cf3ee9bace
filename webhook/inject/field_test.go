package inject

import (
	"path/filepath"
	"strings"
	"testing"

	"gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// fieldWant is what becomes of a pod.
type fieldWant struct {
	reason policy.Reason // Granted where it is injected
	// says is in the warning; empty: there is none.
	says string
	// reload is how a change reaches Prometheus.
	reload Reload
	// port is the sidecar's; 0: [sidecarconfig.DefaultMetricsPort].
	port int32
}

// nothingReloads is what a pod gets until there is another delivery for it than
// the one of pods that nothing reloads.
var nothingReloads = fieldWant{reason: policy.Granted, says: "nothing in the pod reloads Prometheus", reload: ReloadNever}

// Pods that people run, and that an earlier version served wrongly. The first line
// of a file says what is right. Each comes in other shapes of its kind too.
func TestField(t *testing.T) {
	type shape struct {
		name string
		// edits are pairs of a text in the file and what stands there instead.
		edits []string
		want  *fieldWant // nil: as the file's
	}
	other := func(name string, edits ...string) shape { return shape{name: name, edits: edits} }
	but := func(want fieldWant, name string, edits ...string) shape { return shape{name, edits, &want} }
	byReloader := fieldWant{reason: policy.Granted, reload: ReloadByReloader}
	const digest = "@sha256:" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

	files := map[string]struct {
		want   fieldWant
		shapes []shape
	}{
		"am-reloader-shared-volume": {
			nothingReloads,
			[]shape{
				other(
					"blackbox exporter's",
					"jimmidyson/configmap-reload:v0.9",
					"own/config-reloader",
					"--volume-dir=",
					"--watched-dir=",
					"--webhook-url=http://localhost:9093",
					"--reload-url=http://127.0.0.1:9115",
				),
				other(
					"as two arguments, over IPv6",
					"--webhook-url=http://localhost:9093/-/reload",
					"-webhook-url\n    - http://[::1]:9093/-/reload",
				),
				but(
					byReloader,
					"one of both",
					"--webhook-url=http://localhost:9093/-/reload",
					"--webhook-url=http://localhost:9093/-/reload\n    - --webhook-url=http://localhost:9090/-/reload",
				),
				but(
					fieldWant{reason: NoReloader, says: "have one watch"},
					"one that may be Prometheus's Service",
					"http://localhost:9093",
					"http://metrics:80",
				),
			},
		},
		"auto-reload-old-version": {
			nothingReloads,
			[]shape{
				other("among other features", "--enable-feature=auto-reload-config", "--enable-feature\n    - agent,auto-reload-config"),
				other(
					"by the label",
					"prom/prometheus:v2.53.0",
					"own/prometheus"+digest,
					"metadata:",
					"metadata:\n  labels: {app.kubernetes.io/name: prometheus, app.kubernetes.io/version: 2.45.0}",
				),
				but(fieldWant{reason: policy.Granted, reload: ReloadBySelf}, "a version that has it", "v2.53.0", "v3.0.0"),
				but(fieldWant{reason: policy.Granted, reload: ReloadBySelf}, "a version that is not known", ":v2.53.0", digest),
			},
		},
		"custom-image-web-flags": {
			byReloader,
			[]shape{
				other("rules", "--query.timeout=2m", "--rules.alert.resend-delay=1m", "--web.enable-admin-api", "--web.page-title=x"),
				other(
					"an image for one platform",
					"acme.io/obs/prom-server:3",
					"acme.io/obs/prometheus-linux-arm64:v3.5.0",
					"--query.timeout=2m",
					"--log.level=info",
					"--web.enable-admin-api",
					"--web.page-title=x",
				),
				but(
					fieldWant{reason: policy.NotPrometheus, says: policy.AnnotationContainer},
					"nothing that only Prometheus has",
					"--query.timeout=2m",
					"--log.level=info",
					"--web.enable-admin-api",
					"--web.page-title=x",
				),
			},
		},
		"dingtalk-lifecycle": {
			fieldWant{reason: policy.NotPrometheus},
			[]shape{
				other("an exporter", "timonwong/prometheus-webhook-dingtalk", "own/json-exporter"),
				other("in the command", "args:", "command:\n    - /bin/prometheus-webhook-dingtalk"),
				but(
					fieldWant{reason: policy.NotPrometheus, says: policy.AnnotationContainer},
					"under a name that tells nothing",
					"timonwong/prometheus-webhook-dingtalk",
					"own/forwarder",
				),
			},
		},
		"krp-no-reloader": {
			nothingReloads,
			[]shape{
				other("by its name", "quay.io/x"+digest, "quay.io/brancz/kube-rbac-proxy:v0.18"),
				other(
					"another program with such a file",
					"--secure-listen-address=0.0.0.0:8443",
					"--http-address=:4180",
					"name: kube-rbac-proxy",
					"name: gate",
				),
			},
		},
		"op-old-044-prom2.22": {
			fieldWant{reason: OldPrometheus, says: "2.26"},
			[]shape{
				other("older, by tag and digest", "prometheus:v2.22.1", "prometheus:v2.2.1"+digest),
				other(
					"by the label",
					"quay.io/prometheus/prometheus:v2.22.1",
					"own/metrics"+digest,
					"app: prometheus",
					"app.kubernetes.io/name: prometheus\n    app.kubernetes.io/version: 2.11.0",
				),
				but(byReloader, "the first that signs", "v2.22.1", "v2.26.0"),
				but(
					byReloader,
					"the tag is newer than the label",
					"v2.22.1",
					"v2.42.0",
					"app: prometheus",
					"app.kubernetes.io/name: prometheus\n    app.kubernetes.io/version: 2.11.0",
				),
				but(byReloader, "the version of something else", "quay.io/prometheus/prometheus:v2.22.1", "own/metrics:1.0.0"),
			},
		},
		"port-9095-declared": {
			fieldWant{policy.Granted, "nothing in the pod reloads Prometheus", ReloadNever, 19095},
			[]shape{
				but(
					fieldWant{policy.Granted, "", ReloadByReloader, 19095},
					"of the reloader",
					"--web.listen-address=:9095",
					"--web.listen-address=:9090",
					"containerPort: 9095",
					"containerPort: 9090",
					"--watched-dir",
					"--listen-address=:9095\n    - --watched-dir",
				),
				but(
					fieldWant{policy.Granted, "", ReloadByReloader, 19095},
					"Loki's default",
					"--web.listen-address=:9095",
					"--web.listen-address=:9090",
					"containerPort: 9095",
					"containerPort: 9090",
					"  - name: config-reloader",
					"  - name: logs\n    image: grafana/loki:3\n  - name: config-reloader",
				),
			},
		},
		"promtool-job": {
			fieldWant{reason: policy.NotPrometheus},
			[]shape{
				other(
					"in a shell",
					"    - promtool\n    - check\n    - config\n    - /etc/prometheus/prometheus.yml",
					"    - sh\n    - -c\n    - promtool check config /etc/prometheus/prometheus.yml",
				),
				other("its arguments apart", "    - promtool\n    - check", "    - /bin/promtool\n    args:\n    - check"),
				other(
					"under another image",
					"prom/prometheus:v3.5.0",
					"own/tools",
					"    - config\n",
					"    - config\n    - --config.file=/etc/prometheus/prometheus.yml\n",
				),
			},
		},
		"secret-mode-0400-root": {
			fieldWant{reason: UnreadableSource, says: "0400"},
			[]shape{
				but(
					fieldWant{reason: UnreadableSource, says: "0440"},
					"an item of a ConfigMap",
					"secret:\n      secretName: s\n      defaultMode: 256",
					"configMap:\n      name: c\n      items: [{key: p, path: prometheus.yml, mode: 288}]",
				),
				other(
					"projected",
					"secret:\n      secretName: s\n      defaultMode: 256",
					"projected:\n      defaultMode: 256\n      sources: [{secret: {name: s}}]",
				),
				other(
					"a user of its own",
					"  serviceAccountName",
					"  securityContext: {runAsUser: 1000, runAsGroup: 1000}\n  serviceAccountName",
				),
				but(byReloader, "the group reads", "  serviceAccountName", "  securityContext: {fsGroup: 2000}\n  serviceAccountName"),
				but(byReloader, "root reads", "  serviceAccountName", "  securityContext: {runAsUser: 0}\n  serviceAccountName"),
			},
		},
		"sighup-sidecar-reloader-img": {
			fieldWant{reason: NoReloader, says: "by a signal"},
			[]shape{
				other("the host's processes", "shareProcessNamespace: true", "hostPID: true"),
				other(
					"a container that tells nothing",
					"  - name: reloader\n    image: ghcr.io/x/config-map-reloader-sighup\n    env:\n    - name: CONFIG_DIR\n      value: "+
						"/etc/prometheus\n    - name: PROCESS_NAME\n      value: prometheus\n",
					"  - name: x\n    image: own/x\n",
				),
				but(
					nothingReloads,
					"processes of its own: no signal reaches it",
					"shareProcessNamespace: true",
					"shareProcessNamespace: false",
				),
			},
		},
		"thanos-reloader-same-dir": {
			byReloader,
			[]shape{
				other("Prometheus's default address", "    - --prometheus.url=http://127.0.0.1:9090\n", ""),
				other(
					"the directory, as rules",
					"--reloader.config-file=/etc/prometheus/prometheus.yml",
					"--reloader.rule-dir=/etc/prometheus",
				),
				other(
					"as the operator once did",
					"--config.file=/etc/prometheus/prometheus.yml",
					"--config.file=/etc/out/prometheus.yml",
					"      mountPath: /etc/prometheus\n  - name: thanos",
					"      mountPath: /etc/prometheus\n    - name: out\n      mountPath: /etc/out\n  - name: thanos",
					"--reloader.config-file=/etc/prometheus/prometheus.yml",
					"--reloader.config-file=/etc/prometheus/prometheus.yml\n    - --reloader.config-envsubst-file=/etc/out/prometheus.yml",
					"      mountPath: /etc/prometheus\n  volumes:",
					"      mountPath: /etc/prometheus\n    - name: out\n      mountPath: /etc/out\n  volumes:\n  - name: out\n    emptyDir: {}",
				),
				but(
					nothingReloads,
					"of another Prometheus",
					"--prometheus.url=http://127.0.0.1:9090",
					"--prometheus.url=http://127.0.0.1:9091",
				),
			},
		},
	}
	found, err := filepath.Glob("testdata/field/*.yaml")
	if err != nil || len(found) != len(files) {
		t.Errorf("%d files, and %d of them are tested", len(found), len(files))
	}
	for name, file := range files {
		text := string(readFile(t, "field/"+name+".yaml"))
		t.Run(name, func(t *testing.T) { fieldPod(t, text, file.want) })
		for _, s := range file.shapes {
			t.Run(name+"/"+s.name, func(t *testing.T) {
				edited := text
				for i := 0; i < len(s.edits); i += 2 {
					if !strings.Contains(edited, s.edits[i]) {
						t.Fatalf("%q is not in the file", s.edits[i])
					}
					edited = strings.ReplaceAll(edited, s.edits[i], s.edits[i+1])
				}
				want := file.want
				if s.want != nil {
					want = *s.want
				}
				fieldPod(t, edited, want)
			})
		}
	}
}

// fieldPod decides about a pod, and injects it, as the webhook does.
func fieldPod(t *testing.T, text string, want fieldWant) {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	pod, o := decode(t, data), options(t)
	_, prometheus := Prometheus(pod)
	d := o.Policy.Decide(policy.Request{
		Namespace: pod.Metadata.Namespace, Injection: policy.InjectionEnabled, ServiceAccount: "prometheus-x",
		Prometheus: prometheus, Resembles: Resembles(pod), PodAnnotations: pod.Metadata.Annotations,
	})
	var ops []jsonpatch.Operation
	if d.Inject {
		ops, d = Inject(pod, d, o)
	}
	if d.Reason != want.reason || d.Inject != (want.reason == policy.Granted) || (d.Warning != "") != (want.says != "") ||
		!strings.Contains(d.Warning, want.says) {
		t.Fatalf("%t %s: %q; want %s, saying %q", d.Inject, d.Reason, d.Warning, want.reason, want.says)
	}
	if !d.Inject {
		if len(ops) > 0 {
			t.Errorf("%d operations on a pod that is skipped", len(ops))
		}
		return
	}
	after := decode(t, apply(t, data, ops))
	a, err := sidecarconfig.Decode(encodedConfig(after))
	if err != nil {
		t.Fatal(err)
	}
	mark, _ := Marked(ops)
	port := want.port
	if port == 0 {
		port = sidecarconfig.DefaultMetricsPort
	}
	if mark.Reload != want.reload || a.MetricsPort != port || mark.MetricsPort != port {
		t.Errorf(
			"reload %q, metrics at %d (the mark says %d); want %q, %d",
			mark.Reload,
			a.MetricsPort,
			mark.MetricsPort,
			want.reload,
			port,
		)
	}
	if declared := after.Spec.InitContainers[0].Ports; len(declared) != 1 || declared[0].ContainerPort != port {
		t.Errorf("the sidecar declares %v", declared)
	}
	if again, d := Inject(after, granted(t, o.Policy, "monitoring"), o); len(again) > 0 || d.Reason != AlreadyInjected {
		t.Errorf("once more: %d operations, %s", len(again), d.Reason)
	}
}
