package inject

import (
	"strings"
	"testing"
)

// The sidecar must be able to read what the kubelet puts into the volume. Modes are decimal, as in
// the API: 256 is 0400, 288 is 0440, 292 is 0444, 260 is 0404.
func TestUnreadable(t *testing.T) {
	const (
		reads = ""
		image = "{}" // the image determines Prometheus's user; the sidecar runs as 65534
	)
	for _, c := range []struct {
		name, security, volume string
		says                   string // a part of the refusal; reads if there is none
	}{
		{"the default mode", image, "secret: {secretName: s}", reads},
		{"the owner alone", image, "secret: {secretName: s, defaultMode: 256}", "mode 0400"},
		{"the group too", image, "secret: {secretName: s, defaultMode: 288}", "mode 0440"},
		{"others too", image, "secret: {secretName: s, defaultMode: 292}", reads},
		{"no bits at all", "{runAsUser: 0}", "secret: {secretName: s, defaultMode: 0}", "mode 0000"},
		{"root, if only the group may read", "{runAsUser: 0}", "secret: {secretName: s, defaultMode: 32}", "mode 0040"},
		{"root, the owner", "{runAsUser: 0}", "secret: {secretName: s, defaultMode: 256}", reads},
		{"a user of root's group, by default", "{runAsUser: 1000}", "secret: {secretName: s, defaultMode: 288}", reads},
		{"a user of root's group, if the group may not read", "{runAsUser: 1000}", "secret: {secretName: s, defaultMode: 260}", "user 1000"},
		{"a user of another group", "{runAsUser: 1000, runAsGroup: 1000}", "secret: {secretName: s, defaultMode: 288}", "user 1000"},
		{"root's group among others", "{runAsUser: 1000, runAsGroup: 1000, supplementalGroups: [5, 0]}", "secret: {secretName: s, " +
			"defaultMode: 288}", reads},
		{"a group without a user", "{runAsGroup: 0}", "secret: {secretName: s, defaultMode: 288}", reads},
		{"fsGroup adds what is missing", "{fsGroup: 2000}", "secret: {secretName: s, defaultMode: 256}", reads},
		{"fsGroup, and a user", "{runAsUser: 1000, runAsGroup: 1000, fsGroup: 1}", "configMap: {name: c, defaultMode: 0}", reads},

		{"a ConfigMap", image, "configMap: {name: c, defaultMode: 256}", "fsGroup"},
		{"an item's own mode", image, "configMap: {name: c, items: [{key: k, path: p.yml, mode: 256}]}", "the file p.yml"},
		{"the mode of another item", image, "configMap: {name: c, items: [{key: k, path: p.yml}, {key: l, path: rules/l.yml, mode: " +
			"256}]}", "file rules/l.yml"},
		{"items that are better than the default", image, "configMap: {name: c, defaultMode: 256, items: [{key: k, path: p.yml, mode: " +
			"292}]}", reads},
		{"projected, the default", image, "projected: {defaultMode: 288, sources: [{configMap: {name: c}}]}", "mode 0440"},
		{"projected, an item", image, "projected: {sources: [{configMap: {name: c}}, {secret: {name: s, items: [{key: k, path: p, " +
			"mode: 256}]}}]}", "the file p of"},
		{"projected, of the downward API", image, "projected: {sources: [{configMap: {name: c}}, {downwardAPI: {items: [{path: " +
			"labels, mode: 256, fieldRef: {fieldPath: metadata.labels}}]}}]}", "file labels"},
		{"projected, a token", image, "projected: {sources: [{configMap: {name: c}}, {serviceAccountToken: {path: t}}]}", reads},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := podOf(t, `
securityContext: `+c.security+`
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, `+c.volume+`}]`)
			if c.says == reads {
				injected(t, data, options(t))
				return
			}
			if d := refusal(
				t,
				data,
				options(t),
			); d.Reason != UnreadableSource || !strings.Contains(d.Warning, c.says) ||
				!strings.Contains(d.Warning, "fsGroup") {
				t.Errorf("%s: %q, want %q in it", d.Reason, d.Warning, c.says)
			}
		})
	}
	long := podOf(t, `
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: `+
		strings.Repeat("v", 63)+`, mountPath: /c}]}
volumes: [{name: `+strings.Repeat("v", 63)+`, configMap: {name: c, items: [{key: k, path: `+strings.Repeat("p", 200)+`, mode: 256}]}}]`)
	if d := refusal(t, long, options(t)); d.Reason != UnreadableSource || !strings.HasSuffix(d.Warning, "or mode 0444") {
		t.Errorf("%s: the fix of long names is cut: %q", d.Reason, d.Warning)
	}
}
