package inject

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

func TestConfigFile(t *testing.T) {
	for _, c := range []struct{ name, container, want string }{
		{"the image's own arguments", "{image: prom/prometheus}", "/etc/prometheus/prometheus.yml"},
		{"Bitnami's", "{image: docker.io/bitnami/prometheus}", "/opt/bitnami/prometheus/conf/prometheus.yml"},
		{"arguments without the flag", "{args: [--web.enable-lifecycle]}", "/prometheus/prometheus.yml"},
		{"and a working directory", "{args: [--web.enable-lifecycle], workingDir: /srv}", "/srv/prometheus.yml"},
		{"a command alone takes the image's arguments away", "{command: [/bin/prometheus]}", "/prometheus/prometheus.yml"},
		{"--config.file=X", "{args: [--config.file=/c/p.yml]}", "/c/p.yml"},
		{"--config.file X", "{args: [--config.file, /c/p.yml]}", "/c/p.yml"},
		{"-config.file=X", "{args: [-config.file=/c/p.yml]}", "/c/p.yml"},
		{"in the command", "{command: [/bin/prometheus, --config.file=/c/p.yml]}", "/c/p.yml"},
		{"in the command of a wrapper", "{command: [/start], args: [--config.file=/c/p.yml]}", "/c/p.yml"},
		{"another flag that begins alike", "{args: [--config.file-x=/c/p.yml]}", "/prometheus/prometheus.yml"},
		{"not clean", "{args: [--config.file=/c/../d//p.yml]}", "/d/p.yml"},
		{"relative", "{args: [--config.file=p.yml]}", "/prometheus/p.yml"},
	} {
		got, refused := configFile(&containerOf(t, c.container).Spec.Containers[0])
		if refused != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, got, refused, c.want)
		}
	}
	for _, c := range []struct{ name, container, says string }{
		{"a shell", "{command: [/bin/sh, -c], args: [prometheus --config.file=/c/p.yml]}", "shell"},
		{"a variable", "{args: [--config.file=/c/$(NAME).yml]}", "variable"},
		{"an argument file", "{args: ['@/c/args', --config.file=/c/p.yml]}", "argument file"},
		{"a wrapper that decides itself", "{command: [/start]}", "program"},
	} {
		_, refused := configFile(&containerOf(t, c.container).Spec.Containers[0])
		if refused == nil || refused.Reason != UnreadableArguments || !strings.Contains(refused.Warning, c.says) {
			t.Errorf("%s: %+v", c.name, refused)
		}
	}
}

func containerOf(t *testing.T, container string) *Pod {
	return decode(t, podOf(t, "containers: ["+container+"]"))
}

// Pods that can be served, and from where.
func TestLocate(t *testing.T) {
	for _, c := range []struct{ name, spec, volume, file string }{
		{"a ConfigMap and prometheus-config-reloader", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/config/prometheus.yml], volumeMounts: [{name: c, mountPath: /etc/config}]}
- {name: reload, args: [--watched-dir=/etc/config, --reload-url=http://127.0.0.1:9090/-/reload], volumeMounts: [{name: c, mountPath: /etc/config}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"the same, mounted elsewhere in the reloader", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/config/prometheus.yml], volumeMounts: [{name: c, mountPath: /etc/config/}]}
- {name: reload, args: [--watched-dir, /watched/], volumeMounts: [{name: c, mountPath: /watched}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"a Secret, and a reloader given the file", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
- {name: reload, args: [--config-file=/etc/prometheus/prometheus.yml], volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
volumes: [{name: c, secret: {secretName: c}}]`, "c", "prometheus.yml"},
		{"configmap-reload", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
- {name: reload, args: [-volume-dir=/etc/prometheus, '-webhook-url=http://localhost:9090/-/reload'], volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"a reloader that is a native sidecar", `
initContainers:
- {name: reload, restartPolicy: Always, args: [--watched-dir=/etc/prometheus], volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"a projected volume and --config.auto-reload", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, projected: {sources: [{configMap: {name: c}}]}}]`, "c", "p.yml"},
		{"the feature among others", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, '--enable-feature=a,auto-reload-config'], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "p.yml"},
		{"the longest mount is the one", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/prometheus/config/sub/p.yml, --config.auto-reload], volumeMounts: [{name: other, mountPath: /etc/prometheus}, {name: c, mountPath: /etc/prometheus/config}, {name: near, mountPath: /etc/prometheus/conf}]}
volumes: [{name: near, emptyDir: {}}, {name: other, hostPath: {path: /x}}, {name: c, configMap: {name: c}}]`, "c", "sub/p.yml"},
		{"the operator's: expanded from a Secret", `
initContainers:
- {name: init-config-reloader, args: [--watch-interval=0, --config-file=/config/prometheus.yaml.gz, --config-envsubst-file=/out/prometheus.env.yaml], volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/prometheus/config_out/prometheus.env.yaml], volumeMounts: [{name: out, mountPath: /etc/prometheus/config_out}]}
- {name: config-reloader, args: [--config-file=/config/prometheus.yaml.gz, --config-envsubst-file=/out/prometheus.env.yaml], volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, "config", "prometheus.yaml.gz"},
		{"a subPath of it in another container is fine when that starts", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}
- {name: other, volumeMounts: [{name: c, mountPath: /x.yml, subPath: x.yml}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "p.yml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := podOf(t, c.spec)
			pod := decode(t, data)
			index, refused := chosen(pod)
			if refused != nil {
				t.Fatal(refused.Warning)
			}
			got, refused := locate(pod, index)
			if refused != nil {
				t.Fatal(refused.Reason, refused.Warning)
			}
			if volume := pod.Spec.Volumes[got.volume].Name; volume != c.volume || got.file != c.file {
				t.Errorf("%s in volume %s; want %s in %s", got.file, volume, c.file, c.volume)
			}
			injected(t, data, options(t))
		})
	}
}

// Pods that cannot, why, and how to mend it.
func TestLocateNot(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       policy.Reason
		says       string
	}{
		{"the configuration is in the image", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: data, mountPath: /prometheus}]}]
volumes: [{name: data, emptyDir: {}}]`, ConfigurationInImage, "ConfigMap"},
		{"subPath", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus/prometheus.yml, subPath: prometheus.yml}]}]
volumes: [{name: c, configMap: {name: c}}]`, ConfigurationSubPath, "directory"},
		{"subPathExpr", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus, subPathExpr: $(NAME)}]}]
volumes: [{name: c, configMap: {name: c}}]`, ConfigurationSubPath, "directory"},
		{"hostPath", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, hostPath: {path: /c}}]`, ConfigurationVolume, "hostPath"},
		{"a claim", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.auto-reload], volumeMounts: [{name: c, mountPath: /prometheus}]}]
volumes: [{name: c, persistentVolumeClaim: {claimName: c}}]`, ConfigurationVolume, "persistentVolumeClaim"},
		{"an emptyDir that an init container fills", `
initContainers: [{name: git, volumeMounts: [{name: c, mountPath: /out}]}]
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, emptyDir: {}}]`, ConfigurationVolume, "emptyDir"},
		{"a source of the future", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, hologram: {}}]`, ConfigurationVolume, "hologram"},
		{"no reloader", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}]
volumes: [{name: c, configMap: {name: c}}]`, NoReloader, "auto-reload-config"},
		{"a reloader of something else", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
- {name: reload, args: [--watched-dir=/rules], volumeMounts: [{name: r, mountPath: /rules}]}
volumes: [{name: c, configMap: {name: c}}, {name: r, configMap: {name: r}}]`, NoReloader, "auto-reload-config"},
		{"a reloader that ends", `
initContainers:
- {name: reload, args: [--watched-dir=/c], volumeMounts: [{name: c, mountPath: /c}]}
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
volumes: [{name: c, configMap: {name: c}}]`, NoReloader, "auto-reload-config"},
		{"expanded once, at the start", `
initContainers:
- {name: init, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml], volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}]
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, NoReloader, "config-reloader"},
		{"expanded from two places", `
initContainers:
- {name: init, args: [--config-file=/config/first.gz, --config-envsubst-file=/out/p.yml], volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}
- {name: reload, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml], volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, ConfigurationVolume, "expand one"},
		{"expanded from a volume that others fill", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}
- {name: reload, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml], volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, hostPath: {path: /c}}]`, ConfigurationVolume, "hostPath"},
		{"a mount inside the configuration's directory", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}, {name: r, mountPath: /c/rules}]}
volumes: [{name: c, configMap: {name: c}}, {name: r, configMap: {name: r}}]`, NestedMount, "/c/rules"},
		{"a mount of a volume that is not there", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}]`, MalformedPod, `"c"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := refusal(t, podOf(t, c.spec), options(t)); d.Reason != c.want || !strings.Contains(d.Warning, c.says) {
				t.Errorf("%s: %q; want %s, saying %q", d.Reason, d.Warning, c.want, c.says)
			}
		})
	}
}
