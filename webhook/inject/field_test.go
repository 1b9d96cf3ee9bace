package inject

import (
	"path/filepath"
	"strings"
	"testing"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// fieldWant is the expected result for a pod.
type fieldWant struct {
	reason policy.Reason // Granted if it is injected
	// says is a part of the warning if the pod is skipped, and of the reason for the relay if it is
	// injected; empty if there is none.
	says string
	// reload is how a change reaches Prometheus.
	reload Reload
	// port is the sidecar's metrics port; 0 for [sidecarconfig.DefaultMetricsPort].
	port int32
	// version is Prometheus's version in the sidecar config; empty if it is not known.
	version string
}

// signs returns the result for a pod with sigv4.
func signs(reload Reload, version string) fieldWant {
	return fieldWant{reason: policy.Granted, reload: reload, version: version}
}

// relays returns the result for a pod with the relay, with the reason.
func relays(reload Reload, version, why string) fieldWant {
	return fieldWant{reason: policy.Granted, says: why, reload: reload, version: version}
}

// Pods of users that an earlier version handled wrongly. The first line of each file describes the
// correct result. Each pod is also tested in other shapes of the same kind.
func TestField(t *testing.T) {
	type shape struct {
		name string
		// edits are pairs of a text in the file and its replacement.
		edits []string
		want  *fieldWant // nil if it equals the file's
	}
	other := func(name string, edits ...string) shape { return shape{name: name, edits: edits} }
	but := func(want fieldWant, name string, edits ...string) shape { return shape{name, edits, &want} }
	skips := func(reason policy.Reason, says string) fieldWant { return fieldWant{reason: reason, says: says} }
	const (
		digest      = "@sha256:" + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
		notTold     = "version of Prometheus is not known"
		notOwn      = "does not call Prometheus's own reload address"
		noLifecycle = "--web.enable-lifecycle is missing"
		nothing     = "nothing in the pod reloads Prometheus"
	)
	named := "metadata:\n  labels: {app.kubernetes.io/name: prometheus, app.kubernetes.io/version: "
	lifecycle := []string{"    - --storage.tsdb.path=/prometheus", "    - --storage.tsdb.path=/prometheus\n    - --web.enable-lifecycle"}

	files := map[string]struct {
		want   fieldWant
		shapes []shape
	}{
		"am-reloader-shared-volume": {
			relays(ReloadNone, "3.5", notOwn),
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
				other("one that may be Prometheus's Service", "http://localhost:9093", "http://metrics:9090"),
				but(
					signs(ReloadByReloader, "3.5"),
					"one of both",
					append(
						lifecycle,
						"--webhook-url=http://localhost:9093/-/reload",
						"--webhook-url=http://localhost:9093/-/reload\n    - --webhook-url=http://localhost:9090/-/reload",
					)...,
				),
				but(
					relays(ReloadNone, "3.5", noLifecycle),
					"one of both, and Prometheus refuses",
					"--webhook-url=http://localhost:9093/-/reload",
					"--webhook-url=http://localhost:9093/-/reload\n    - --webhook-url=http://localhost:9090/-/reload",
				),
			},
		},
		"auto-reload-old-version": {
			relays(ReloadNone, "2.53", "2.53 has no auto-reload"),
			[]shape{
				other("among other features", "--enable-feature=auto-reload-config", "--enable-feature\n    - agent,auto-reload-config"),
				but(
					relays(ReloadNone, "2.45", "2.45 has no auto-reload"),
					"by the label",
					"prom/prometheus:v2.53.0", "own/prometheus"+digest, "metadata:", named+"2.45.0}",
				),
				but(
					relays(ReloadNone, "3.11", "3.11 has no auto-reload"),
					"the flag, before it came",
					"--enable-feature=auto-reload-config", "--config.auto-reload", "v2.53.0", "v3.11.3",
				),
				but(signs(ReloadBySelf, "3.12"), "the flag", "--enable-feature=auto-reload-config", "--config.auto-reload", "v2.53.0", "v3.12.0"),
				but(signs(ReloadBySelf, "3.0"), "a version that has it", "v2.53.0", "v3.0.0"),
				but(relays(ReloadNone, "", notTold), "a version that is not known", ":v2.53.0", digest),
				but(relays(ReloadNone, "", "label app.kubernetes.io/version is 3.5"), "two versions", "metadata:", named+"3.5.0}"),
			},
		},
		"custom-image-web-flags": {
			relays(ReloadNone, "", notTold),
			[]shape{
				other("rules", "--query.timeout=2m", "--rules.alert.resend-delay=1m", "--web.enable-admin-api", "--web.page-title=x"),
				but(
					relays(ReloadNone, "3.5", noLifecycle),
					"an image for one platform",
					"acme.io/obs/prom-server:3",
					"acme.io/obs/prometheus-linux-arm64:v3.5.0",
					"--query.timeout=2m",
					"--log.level=info",
					"--web.enable-admin-api",
					"--web.page-title=x",
				),
				but(
					signs(ReloadByReloader, "3.5"),
					"a label with its version",
					"metadata:",
					named+"3.5.0}",
					"--web.enable-admin-api",
					"--web.enable-lifecycle",
				),
				but(
					skips(policy.NotPrometheus, policy.AnnotationContainer),
					"nothing that only Prometheus has",
					"--query.timeout=2m",
					"--log.level=info",
					"--web.enable-admin-api",
					"--web.page-title=x",
				),
			},
		},
		"dingtalk-lifecycle": {
			skips(policy.NotPrometheus, ""),
			[]shape{
				other("an exporter", "timonwong/prometheus-webhook-dingtalk", "own/json-exporter"),
				other("in the command", "args:", "command:\n    - /bin/prometheus-webhook-dingtalk"),
				but(
					skips(policy.NotPrometheus, policy.AnnotationContainer),
					"under a name without meaning",
					"timonwong/prometheus-webhook-dingtalk",
					"own/forwarder",
				),
			},
		},
		"krp-no-reloader": {
			relays(ReloadNone, "3.5", nothing),
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
			relays(ReloadByReloader, "2.22", "2.22 cannot sign"),
			[]shape{
				but(relays(ReloadByReloader, "2.8", "2.8 cannot sign"), "the first with a WAL, by tag and digest",
					"prometheus:v2.22.1", "prometheus:v2.8.0"+digest),
				but(
					relays(ReloadByReloader, "2.11", "2.11 cannot sign"),
					"by the label",
					"quay.io/prometheus/prometheus:v2.22.1",
					"own/metrics"+digest,
					"app: prometheus",
					"app.kubernetes.io/name: prometheus\n    app.kubernetes.io/version: 2.11.0",
				),
				but(skips(OldPrometheus, "no WAL before 2.8"), "before the WAL", "v2.22.1", "v2.7.2"),
				but(
					relays(ReloadByReloader, "", "tag is 2.5, but the label app.kubernetes.io/version is 2.42"),
					"the label is newer than the tag",
					"v2.22.1",
					"v2.5.0",
					"app: prometheus",
					"app.kubernetes.io/name: prometheus\n    app.kubernetes.io/version: v2.42.0",
				),
				but(
					relays(ReloadByReloader, "", notTold),
					"the version of something else",
					"quay.io/prometheus/prometheus:v2.22.1", "own/metrics:1.0.0",
				),
				but(relays(ReloadByReloader, "2.26", "--web.config.file"), "the first that signs, perhaps with a password", "v2.22.1", "v2.26.0"),
				but(
					signs(ReloadByReloader, "2.26"),
					"the first that signs",
					"v2.22.1",
					"v2.26.0",
					"    - --web.config.file=/etc/prometheus/web_config/web-config.yaml\n",
					"",
				),
			},
		},
		"port-9095-declared": {
			fieldWant{policy.Granted, notOwn, ReloadNone, 19095, "3.5"},
			[]shape{
				but(
					fieldWant{policy.Granted, noLifecycle, ReloadNone, 19095, "3.5"},
					"of the reloader",
					"--web.listen-address=:9095",
					"--web.listen-address=:9090",
					"containerPort: 9095",
					"containerPort: 9090",
					"--watched-dir",
					"--listen-address=:9095\n    - --watched-dir",
				),
				but(
					fieldWant{policy.Granted, "", ReloadByReloader, 19095, "3.5"},
					"Loki's default",
					append(
						lifecycle,
						"--web.listen-address=:9095",
						"--web.listen-address=:9090",
						"containerPort: 9095",
						"containerPort: 9090",
						"  - name: config-reloader",
						"  - name: logs\n    image: grafana/loki:3\n  - name: config-reloader",
					)...,
				),
			},
		},
		"promtool-job": {
			skips(policy.NotPrometheus, ""),
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
			skips(UnreadableSource, "0400"),
			[]shape{
				but(
					skips(UnreadableSource, "0440"),
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
				but(relays(ReloadNone, "", notTold), "the group reads",
					"  serviceAccountName", "  securityContext: {fsGroup: 2000}\n  serviceAccountName"),
				but(relays(ReloadNone, "", notTold), "root reads",
					"  serviceAccountName", "  securityContext: {runAsUser: 0}\n  serviceAccountName"),
			},
		},
		"sighup-sidecar-reloader-img": {
			relays(ReloadNone, "3.5", nothing),
			[]shape{
				other("the host's processes", "shareProcessNamespace: true", "hostPID: true"),
				other(
					"a container without any hint",
					"  - name: reloader\n    image: ghcr.io/x/config-map-reloader-sighup\n    env:\n    - name: CONFIG_DIR\n      value: "+
						"/etc/prometheus\n    - name: PROCESS_NAME\n      value: prometheus\n",
					"  - name: x\n    image: own/x\n",
				),
				but(
					relays(ReloadNone, "3.5", "container reloader reloads Prometheus by a signal"),
					"prometheus-config-reloader's own way",
					append(
						lifecycle,
						"    env:\n    - name: CONFIG_DIR",
						"    args: [--watched-dir=/etc/prometheus, --reload-method=signal]\n    env:\n    - name: CONFIG_DIR",
					)...,
				),
			},
		},
		"thanos-reloader-same-dir": {
			signs(ReloadByReloader, "3.5"),
			[]shape{
				other("Prometheus's default address", "    - --prometheus.url=http://127.0.0.1:9090\n", ""),
				other(
					"the directory, as rules",
					"--reloader.config-file=/etc/prometheus/prometheus.yml",
					"--reloader.rule-dir=/etc/prometheus",
				),
				other(
					"under a prefix",
					"    - --web.enable-lifecycle",
					"    - --web.enable-lifecycle\n    - --web.external-url=https://example.com/metrics/",
					"--prometheus.url=http://127.0.0.1:9090",
					"--prometheus.url=http://localhost:9090/metrics",
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
					relays(ReloadNone, "3.5", notOwn),
					"of another Prometheus",
					"--prometheus.url=http://127.0.0.1:9090",
					"--prometheus.url=http://127.0.0.1:9091",
				),
				but(relays(ReloadNone, "3.5", "reloads Prometheus by a signal"), "by a signal",
					"    - --prometheus.url", "    - --reloader.method=signal\n    - --prometheus.url"),
				but(relays(ReloadNone, "3.5", "does not watch"), "of something else",
					"--reloader.config-file=/etc/prometheus/prometheus.yml", "--reloader.config-file=/etc/thanos/x.yml"),
			},
		},
	}
	found, err := filepath.Glob("testdata/field/*.yaml")
	if err != nil || len(found) != len(files) {
		t.Errorf("%d files, but only %d are tested", len(found), len(files))
	}
	for name, file := range files {
		text := string(readFile(t, "field/"+name+".yaml"))
		t.Run(name, func(t *testing.T) { fieldPod(t, text, file.want) })
		first, _, _ := strings.Cut(text, "\n")
		expected := "inject"
		if file.want.reason != policy.Granted {
			expected = "skip"
		}
		relay := strings.Contains(first, "delivery relay")
		if !strings.Contains(first, expected) || relay && (expected == "skip" || file.want.says == "") {
			t.Errorf("want %s to be %+v, but its first line is %s", name, file.want, first)
		}
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

// fieldPod decides about a pod and injects it, as the webhook does.
func fieldPod(t *testing.T, text string, want fieldWant) {
	t.Helper()
	data := fromYAML(t, text)
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
	says := want.says
	if want.reason == policy.Granted {
		says = "" // it is in the mark
	}
	if d.Reason != want.reason || d.Inject != (want.reason == policy.Granted) || (d.Warning != "") != (says != "") ||
		!strings.Contains(d.Warning, says) {
		t.Fatalf("%t %s: %q; want %s, saying %q", d.Inject, d.Reason, d.Warning, want.reason, says)
	}
	if !d.Inject {
		if len(ops) > 0 {
			t.Errorf("%d operations on a pod that is skipped", len(ops))
		}
		return
	}
	after := decode(t, apply(t, data, ops))
	a, err := sidecarconfig.Decode(encodedConfig(after))
	testkit.Must(t, err)
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
	if mark.Why != "" != (want.says != "") || !strings.Contains(mark.Why, want.says) || a.Prometheus.Version != want.version {
		t.Errorf("why %q, version %q; want %q, %q", mark.Why, a.Prometheus.Version, want.says, want.version)
	}
	deliveryIs(t, data, ops, want.says == "")
	if declared := after.Spec.InitContainers[0].Ports; len(declared) != 1 || declared[0].ContainerPort != port {
		t.Errorf("the sidecar declares %v", declared)
	}
	if again, d := Inject(after, granted(t, o.Policy, "monitoring"), o); len(again) > 0 || d.Reason != AlreadyInjected {
		t.Errorf("again: %d operations, %s", len(again), d.Reason)
	}
}
