package inject

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
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
		{"in a shell's script", "{command: [/bin/sh, -c], args: [prometheus --config.file=/c/p.yml]}", "/c/p.yml"},
		{"after exec, over several lines", "{command: [sh, -ec, \"exec /bin/prometheus \\\\\\n --config.file '/c/p.yml' \\\\\\n\"]}", "/c/p.yml"},
		{"with variables elsewhere", "{command: [sh, -c, 'prometheus --web.external-url=\"${URL}\" --config.file=/c/p.yml']}", "/c/p.yml"},
		{"a script without the flag", "{command: [sh, -c, prometheus --web.enable-lifecycle], workingDir: /srv}", "/srv/prometheus.yml"},
		{"a script's arguments are not the image's", "{command: [sh, -c, prometheus]}", "/prometheus/prometheus.yml"},
	} {
		got, refused := configFile(&containerOf(t, c.container).Spec.Containers[0])
		if refused != nil || got != c.want {
			t.Errorf("%s: %s, %v; want %s", c.name, got, refused, c.want)
		}
	}
	for _, c := range []struct{ name, container, says string }{
		{"a script of two commands", "{command: [/bin/sh, -c], args: [envsubst </t >/c/p.yml; prometheus --config.file=/c/p.yml]}", "shell"},
		{"a script of two lines", "{command: [sh, -c, \"prepare\\nprometheus --config.file=/c/p.yml\"]}", "shell"},
		{"a script with arguments", "{command: [sh, -c, 'prometheus --config.file=/c/p.yml', x]}", "shell"},
		{"a script in a file", "{command: [sh, /start.sh], args: [--config.file=/c/p.yml]}", "shell"},
		{"a command substitution", "{command: [sh, -c, 'prometheus --config.file=/c/p.yml --x=\"$(date)\"']}", "shell"},
		{"a pattern", "{command: [sh, -c, 'prometheus --config.file=/c/*.yml']}", "shell"},
		{"a quote that does not end", "{command: [sh, -c, \"prometheus --config.file='/c/p.yml\"]}", "shell"},
		{"an assignment before it", "{command: [sh, -c, 'A=b prometheus --config.file=/c/p.yml']}", "shell"},
		{"a variable in a script", "{command: [sh, -c, 'prometheus --config.file=/c/$NAME.yml']}", "variable"},
		{"env", "{command: [env, A=b, prometheus, --config.file=/c/p.yml]}", "shell"},
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

// Pods that are supported, with the volume and file of the configuration.
func TestLocate(t *testing.T) {
	for _, c := range []struct{ name, spec, volume, file string }{
		{"a ConfigMap and prometheus-config-reloader", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/config/prometheus.yml],
  volumeMounts: [{name: c, mountPath: /etc/config}]}
- {name: reload, args: [--watched-dir=/etc/config, --reload-url=http://127.0.0.1:9090/-/reload],
  volumeMounts: [{name: c, mountPath: /etc/config}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"the same, mounted elsewhere in the reloader", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/config/prometheus.yml],
  volumeMounts: [{name: c, mountPath: /etc/config/}]}
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
- {name: reload, args: [-volume-dir=/etc/prometheus, '-webhook-url=http://localhost:9090/-/reload'],
  volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
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
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, '--enable-feature=a,auto-reload-config'],
  volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "p.yml"},
		{"the longest mount is the one", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/prometheus/config/sub/p.yml, --config.auto-reload],
  volumeMounts: [{name: other, mountPath: /etc/prometheus}, {name: c, mountPath: /etc/prometheus/config},
    {name: near, mountPath: /etc/prometheus/conf}]}
volumes: [{name: near, emptyDir: {}}, {name: other, hostPath: {path: /x}}, {name: c, configMap: {name: c}}]`, "c", "sub/p.yml"},
		{"the operator's: expanded from a Secret", `
initContainers:
- {name: init-config-reloader, args: [--watch-interval=0, --config-file=/config/prometheus.yaml.gz,
  --config-envsubst-file=/out/prometheus.env.yaml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/etc/prometheus/config_out/prometheus.env.yaml],
  volumeMounts: [{name: out, mountPath: /etc/prometheus/config_out}]}
- {name: config-reloader, args: [--config-file=/config/prometheus.yaml.gz, --config-envsubst-file=/out/prometheus.env.yaml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, "config", "prometheus.yaml.gz"},
		{"a subPath of it in another container is allowed if that one starts", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}
- {name: other, volumeMounts: [{name: c, mountPath: /x.yml, subPath: x.yml}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "p.yml"},
		{"a reloader of something else", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
- {name: reload, args: [--watched-dir=/rules], volumeMounts: [{name: r, mountPath: /rules}]}
volumes: [{name: c, configMap: {name: c}}, {name: r, configMap: {name: r}}]`, "c", "prometheus.yml"},
		{"a container that calls the reload address", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
- {name: rules, env: [{name: REQ_URL, value: 'http://localhost:9090/-/reload'}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"Thanos's sidecar, which watches rules", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus}]}
- {name: thanos, args: [sidecar, --reloader.rule-dir=/rules]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"no reloader, and an address that the pod does not show", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, '--web.listen-address=$(POD_IP):9090'],
  volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, configMap: {name: c}}]`, "c", "p.yml"},
		{"subPath and a reloader", `
containers:
- {name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus/prometheus.yml, subPath: prometheus.yml}]}
- {name: reload, args: [--watched-dir=/c], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`, "c", "prometheus.yml"},
		{"subPath and auto-reload", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload],
  volumeMounts: [{name: c, mountPath: /c/p.yml, subPath: p.yml}]}]
volumes: [{name: c, configMap: {name: c}}]`, "c", "p.yml"},
		{"expanded once, at the start", `
initContainers:
- {name: init, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}]
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, "config", "p.gz"},
		{"expanded, and mounted with subPath", `
initContainers:
- {name: init, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml],
  volumeMounts: [{name: out, mountPath: /c/p.yml, subPath: p.yml}]}]
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, "config", "p.gz"},
		{"expanded by a container that reloads another program", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}
- {name: reload, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml, '--reload-url=http://localhost:9093/-/reload'],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, "config", "p.gz"},
		{"one file, without a reloader", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml],
  volumeMounts: [{name: c, mountPath: /c/p.yml, subPath: conf/p.yml}]}]
volumes: [{name: c, configMap: {name: c, items: [{key: p, path: conf/p.yml}]}}]`, "c", "conf/p.yml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := podOf(t, c.spec)
			pod := decode(t, data)
			index, refused := selectContainer(pod)
			if refused != nil {
				t.Fatal(refused.Warning)
			}
			got, refused := locateConfig(pod, index)
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

// Other volumes that are mounted inside the configuration's directory.
func TestNested(t *testing.T) {
	for _, c := range []struct {
		name, mounts string
		want         []sidecarconfig.MountPoint
		refused      bool
	}{
		{"a directory", "{name: map, mountPath: /c/rules}", []sidecarconfig.MountPoint{{Name: "rules"}}, false},
		{"a claim", "{name: claim, mountPath: /c/targets/}", []sidecarconfig.MountPoint{{Name: "targets"}}, false},
		{"a file", "{name: map, mountPath: /c/web.yml, subPath: web.yml}", []sidecarconfig.MountPoint{{Name: "web.yml", File: true}}, false},
		{"a file of the configuration's own volume", "{name: c, mountPath: /c/web.yml, subPath: web.yml}",
			[]sidecarconfig.MountPoint{{Name: "web.yml", File: true}}, false},
		{"a directory of items", "{name: items, mountPath: /c/rules, subPath: a}", []sidecarconfig.MountPoint{{Name: "rules"}}, false},
		{"a host's directory", "{name: hostdir, mountPath: /c/rules}", []sidecarconfig.MountPoint{{Name: "rules"}}, false},
		{"a host's file", "{name: hostfile, mountPath: /c/rules}", []sidecarconfig.MountPoint{{Name: "rules", File: true}}, false},
		{"one in another", "{name: map, mountPath: /c/rules}, {name: claim, mountPath: /c/rules/more/deep}",
			[]sidecarconfig.MountPoint{{Name: "rules"}}, false},
		{"next to it", "{name: map, mountPath: /cc}", nil, false},
		{"deep", "{name: map, mountPath: /c/rules/more}", nil, true},
		{"a host's path of unknown type", "{name: host, mountPath: /c/rules}", nil, true},
		{"a part of a claim", "{name: claim, mountPath: /c/rules, subPath: rules}", nil, true},
		{"a name of the kubelet's", "{name: map, mountPath: /c/..data}", nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := podOf(t, `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload],
  volumeMounts: [{name: c, mountPath: /c}, `+c.mounts+`]}
volumes:
- {name: c, configMap: {name: c}}
- {name: map, configMap: {name: m}}
- {name: items, projected: {sources: [{configMap: {name: m, items: [{key: k, path: a/b.yml}]}}]}}
- {name: claim, persistentVolumeClaim: {claimName: p}}
- {name: host, hostPath: {path: /x}}
- {name: hostdir, hostPath: {path: /x, type: DirectoryOrCreate}}
- {name: hostfile, hostPath: {path: /x, type: File}}`)
			if c.refused {
				if d := refusal(t, data, options(t)); d.Reason != NestedMount {
					t.Errorf("%s: %s", d.Reason, d.Warning)
				}
				return
			}
			a, err := sidecarconfig.Decode(encodedConfig(decode(t, injected(t, data, options(t)))))
			testkit.Must(t, err)
			testkit.Equal(t, "mount points", c.want, a.MountPoints)
		})
	}
}

// Pods that are not supported, with the reason and the fix.
func TestLocateNot(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		want       policy.Reason
		says       string
	}{
		{"the configuration is in the image", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: data, mountPath: /prometheus}]}]
volumes: [{name: data, emptyDir: {}}]`, ConfigurationInImage, "ConfigMap"},
		{"subPathExpr", `
containers: [{name: prometheus, image: prom/prometheus, volumeMounts: [{name: c, mountPath: /etc/prometheus, subPathExpr: $(NAME)}]}]
volumes: [{name: c, configMap: {name: c}}]`, ConfigurationSubPath, "directory"},
		{"hostPath", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload],
  volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, hostPath: {path: /c}}]`, ConfigurationVolume, "hostPath"},
		{"a claim", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.auto-reload], volumeMounts: [{name: c, mountPath: /prometheus}]}]
volumes: [{name: c, persistentVolumeClaim: {claimName: c}}]`, ConfigurationVolume, "persistentVolumeClaim"},
		{"an emptyDir that an init container fills", `
initContainers: [{name: git, volumeMounts: [{name: c, mountPath: /out}]}]
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload],
  volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, emptyDir: {}}]`, ConfigurationVolume, "emptyDir"},
		{"a source of the future", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload],
  volumeMounts: [{name: c, mountPath: /c}]}]
volumes: [{name: c, hologram: {}}]`, ConfigurationVolume, "hologram"},
		{"subPath of an emptyDir", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml],
  volumeMounts: [{name: c, mountPath: /c/p.yml, subPath: p.yml}]}]
volumes: [{name: c, emptyDir: {}}]`, ConfigurationVolume, "emptyDir"},
		{"a directory mounted with subPath", `
containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml],
  volumeMounts: [{name: c, mountPath: /c, subPath: conf}]}]
volumes: [{name: c, configMap: {name: c, items: [{key: p, path: conf/p.yml}]}}]`, ConfigurationSubPath, "whole directory"},
		{"expanded from two places", `
initContainers:
- {name: init, args: [--config-file=/config/first.gz, --config-envsubst-file=/out/p.yml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}
- {name: reload, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, secret: {secretName: s}}]`, ConfigurationVolume, "expand only one"},
		{"expanded from a volume that others fill", `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: out, mountPath: /c}]}
- {name: reload, args: [--config-file=/config/p.gz, --config-envsubst-file=/out/p.yml],
  volumeMounts: [{name: config, mountPath: /config}, {name: out, mountPath: /out}]}
volumes: [{name: out, emptyDir: {}}, {name: config, hostPath: {path: /c}}]`, ConfigurationVolume, "hostPath"},
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
