package inject

import (
	stdcmp "cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var pods = []string{"operator", "chart", "handwritten", "relay"}

func TestPatch(t *testing.T) {
	for _, name := range pods {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			data := readFile(t, name+".in.json")
			pod := decode(t, data)
			ops, d := Inject(pod, granted(t, o.Policy, pod.Metadata.Namespace), o)
			if !d.Inject || d.Reason != policy.Granted || d.Warning != "" {
				t.Fatalf("decision %+v", d)
			}
			testkit.Golden(t, "testdata/"+name+".want.yaml", asYAML(t, ops))
		})
	}
}

// Everything that is promised about an injected pod, read with the API types and not with the code
// that wrote it.
func TestInjectedPod(t *testing.T) {
	want := map[string]struct {
		container, volume, file string
		source                  corev1.VolumeSource
		user, group             *int64
	}{
		"operator": {
			"prometheus",
			"config",
			"prometheus.yaml.gz",
			corev1.VolumeSource{
				Secret: &corev1.SecretVolumeSource{SecretName: "prometheus-k8s", DefaultMode: new(int32(420))},
			},
			new(int64(1000)),
			nil,
		},
		"chart": {
			"prometheus-server",
			"config-volume",
			"prometheus.yml",
			corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{
					LocalObjectReference: corev1.LocalObjectReference{Name: "prometheus-server"},
					DefaultMode:          new(int32(420)),
				},
			},
			new(int64(65534)),
			new(int64(65534)),
		},
		"handwritten": {"main", "config", "prometheus.yml",
			corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "prometheus"}}, nil, nil},
		"relay": {
			"prometheus",
			"config",
			"prometheus.yml",
			corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "prometheus"}},
			},
			nil,
			nil,
		},
	}
	for _, name := range pods {
		t.Run(name, func(t *testing.T) {
			want, o := want[name], options(t)
			pod := typedPod(t, injected(t, readFile(t, name+".in.json"), o))
			volumes := map[string]corev1.VolumeSource{}
			for _, v := range pod.Spec.Volumes {
				volumes[v.Name] = v.VolumeSource
			}
			memory := corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{
				Medium: corev1.StorageMediumMemory, SizeLimit: new(resource.MustParse("64Mi")),
			}}
			for volume, source := range map[string]corev1.VolumeSource{
				want.volume: memory, sidecarconfig.VolumeSource: want.source, sidecarconfig.VolumeCredentials: memory,
				sidecarconfig.VolumeNoAPIToken: memory,
			} {
				testkit.Equal(t, "volume "+volume, source, volumes[volume])
			}
			token := volumes[sidecarconfig.VolumeToken].Projected.Sources[0].ServiceAccountToken
			if token.Audience != "sts.amazonaws.com" || *token.ExpirationSeconds != 3600 || token.Path != "token" {
				t.Errorf("token volume: %+v", token)
			}

			sidecar := pod.Spec.InitContainers[0]
			if sidecar.Name != sidecarconfig.ContainerName || *sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways {
				t.Fatalf("the first init container is %s, restartPolicy %v", sidecar.Name, sidecar.RestartPolicy)
			}
			user, group, private := want.user, want.group, want.user != nil
			if user == nil {
				user, group = new(int64(65534)), new(int64(65534))
			}
			testkit.Equal(t, "the sidecar's user and group",
				[]*int64{user, group},
				[]*int64{sidecar.SecurityContext.RunAsUser, sidecar.SecurityContext.RunAsGroup},
			)
			// The API server's ServiceAccount plugin looks for this mount.
			if !slices.ContainsFunc(sidecar.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == apiTokenDir }) {
				t.Error("the API server would mount an API token into the sidecar")
			}
			a, err := sidecarconfig.Decode(strings.ReplaceAll(sidecar.Env[0].Value, "$$", "$"))
			testkit.Must(t, err)
			if a.File != want.file || a.Private != private || len(a.Destinations) == 0 {
				t.Errorf(
					"sidecar config: file %q, private %t, %d destinations; want %q, %t",
					a.File,
					a.Private,
					len(a.Destinations),
					want.file,
					private,
				)
			}
			for _, variable := range strings.SplitAfter(sidecar.Env[0].Value, "$$") {
				if strings.Count(variable, "$")%2 != 0 {
					t.Errorf("a lone $ in %q: the kubelet expands it", variable)
				}
			}

			for _, c := range append(pod.Spec.InitContainers[1:], pod.Spec.Containers...) {
				for _, m := range c.VolumeMounts {
					if m.Name == want.volume && !m.ReadOnly {
						t.Errorf("container %s can write to %s", c.Name, want.volume)
					}
				}
				sees := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
					return m.Name == sidecarconfig.VolumeCredentials && m.MountPath == sidecarconfig.CredentialsDir && m.ReadOnly
				})
				if sees != (c.Name == want.container) {
					t.Errorf("container %s sees the credentials: %t", c.Name, sees)
				}
			}
		})
	}
}

func TestInjectingTwiceIsOnce(t *testing.T) {
	for _, name := range pods {
		o := options(t)
		once := injected(t, readFile(t, name+".in.json"), o)
		pod := decode(t, once)
		ops, d := Inject(pod, granted(t, o.Policy, pod.Metadata.Namespace), o)
		if len(ops) != 0 || !d.Inject || d.Reason != AlreadyInjected || d.Warning != "" {
			t.Errorf("%s: %d operations, %+v", name, len(ops), d)
		}
	}
}

// Members that the patch does not change stay exactly the same, including the digits of numbers.
func TestWhatThisBuildDoesNotKnowSurvives(t *testing.T) {
	for _, name := range pods {
		t.Run(name, func(t *testing.T) {
			data := readFile(t, name+".in.json")
			before, after := generic(t, data), generic(t, injected(t, data, options(t)))
			target := takeBack(after)
			for _, c := range containersOf(before) {
				for _, m := range c["volumeMounts"].([]any) {
					if m := m.(map[string]any); m["name"] == target {
						m["readOnly"] = true
					}
				}
			}
			testkit.Equal(t, "the pod without what was added", before, after)
		})
	}
}

// takeBack removes what an injection adds from a pod, only by the names, and returns the name of
// the interposed volume. Only the read-only mounts of this volume stay.
func takeBack(pod any) (target string) {
	p := pod.(map[string]any)
	metadata, spec := p["metadata"].(map[string]any), p["spec"].(map[string]any)
	annotations := metadata["annotations"].(map[string]any)
	delete(annotations, AnnotationInjected)
	if len(annotations) == 0 {
		delete(metadata, "annotations")
	}
	for _, c := range containersOf(pod) {
		for _, m := range c["volumeMounts"].([]any) {
			if m := m.(map[string]any); m["mountPath"] == sidecarconfig.TargetDir {
				target = m["name"].(string)
			}
		}
	}
	volumes := spec["volumes"].([]any)
	for _, v := range volumes {
		if v.(map[string]any)["name"] == sidecarconfig.VolumeSource {
			i := slices.IndexFunc(volumes, func(v any) bool { return v.(map[string]any)["name"] == target })
			volumes[i] = maps.Clone(v.(map[string]any))
			volumes[i].(map[string]any)["name"] = target
		}
	}
	drop := func(in map[string]any, list string) {
		items, there := in[list].([]any)
		if !there {
			return
		}
		in[list] = slices.DeleteFunc(items, func(v any) bool {
			name, _ := v.(map[string]any)["name"].(string)
			return strings.HasPrefix(name, "ampbridge-") || strings.HasPrefix(name, "AWS_") || name == "registry"
		})
		if len(in[list].([]any)) == 0 {
			delete(in, list)
		}
	}
	drop(spec, "initContainers")
	drop(spec, "volumes")
	drop(spec, "imagePullSecrets")
	for _, c := range containersOf(pod) {
		drop(c, "env")
		drop(c, "volumeMounts")
	}
	return target
}

func containersOf(pod any) (all []map[string]any) {
	spec := pod.(map[string]any)["spec"].(map[string]any)
	for _, list := range []string{"initContainers", "containers"} {
		items, _ := spec[list].([]any)
		for _, c := range items {
			c, _ := c.(map[string]any) // null is a container without members
			all = append(all, c)
		}
	}
	return all
}

func TestPodsThatAreLeftAlone(t *testing.T) {
	base := string(readFile(t, "chart.in.json"))
	for _, c := range []struct {
		name     string
		old, new string
		want     policy.Reason
		says     string
	}{
		{"Windows by its nodeSelector", `"dnsPolicy"`, `"nodeSelector": {"kubernetes.io/os": "windows"}, "dnsPolicy"`, Windows, "Linux"},
		{"Windows by its OS", `"dnsPolicy"`, `"os": {"name": "windows"}, "dnsPolicy"`, Windows, "Linux"},
		{"a virtual node", `"dnsPolicy"`, `"nodeSelector": {"type": "virtual-kubelet"}, "dnsPolicy"`, VirtualNode, "ordinary node"},
		{"Windows by its options", `"fsGroup": 65534`, `"windowsOptions": {}`, Windows, "Linux"},
		{"a volume with ampbridge's name", `"storage-volume"`, `"ampbridge-token"`, PartlyInjected, "volume ampbridge-token"},
		{"ampbridge's annotation from a copied manifest", `"generateName"`, `"annotations": {"ampbridge.io/injected": "{}"}, "generateName"`,
			PartlyInjected, "ampbridge.io/injected"},
		{"a container with the sidecar's name",
			`"prometheus-server-configmap-reload"`, `"ampbridge-config"`, PartlyInjected, "container ampbridge-config"},
		{"two volumes of one name", `"storage-volume"`, `"config-volume"`, MalformedPod, "config-volume"},
		{"no name", `"generateName": "prometheus-server-76ddd9d5f5-"`, `"generateName": ""`, MalformedPod, "generateName"},
	} {
		t.Run(c.name, func(t *testing.T) {
			edited := strings.ReplaceAll(base, c.old, c.new)
			if c.name == "no name" {
				edited = strings.ReplaceAll(edited, `"name": "prometheus-server-76ddd9d5f5-twjrg",`, "")
			}
			if edited == base {
				t.Fatal("the edit did not match")
			}
			if d := refusal(t, []byte(edited), options(t)); d.Reason != c.want || !strings.Contains(d.Warning, c.says) {
				t.Errorf("%s: %q; want %s, saying %q", d.Reason, d.Warning, c.want, c.says)
			}
		})
	}
}

func TestNoImageIsNoInjection(t *testing.T) {
	o := options(t)
	o.Image = ""
	if d := refusal(t, readFile(t, "chart.in.json"), o); d.Reason != NoSidecarImage {
		t.Errorf("%s", d.Reason)
	}
	o.Policy.Sidecar.Image, o.Image = "registry.example.com/own:1", testImage
	if image := typedPod(t, injected(t, readFile(t, "chart.in.json"), o)).Spec.InitContainers[0].Image; image != "registry.example.com/own:1" {
		t.Errorf("image %s: the policy's has priority", image)
	}
}

// podWithContexts returns a pod with security contexts of the pod and of Prometheus's container.
func podWithContexts(t *testing.T, pod, container string) []byte {
	t.Helper()
	return podOf(t, `
securityContext: `+pod+`
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], securityContext: `+container+
		`, volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`)
}

func TestSidecarUser(t *testing.T) {
	for _, c := range []struct {
		name, pod, container string
		uid, gid             *int64
		nonRoot              *bool
		private              bool
	}{
		{"the container's, before the pod's", "{runAsUser: 1, runAsGroup: 2}", "{runAsUser: 3, runAsGroup: 4}", new(int64(3)), new(int64(4)),
			new(true), true},
		{"the pod's", "{runAsUser: 1, runAsGroup: 2}", "{}", new(int64(1)), new(int64(2)), new(true), true},
		{"one of each", "{runAsUser: 1}", "{runAsGroup: 4}", new(int64(1)), new(int64(4)), new(true), true},
		{"no group: the image's, as for Prometheus", "{runAsUser: 1}", "{}", new(int64(1)), nil, new(true), true},
		{"none is set: nobody, and the file is not private", "{}", "{}", new(int64(65534)), new(int64(65534)), new(true), false},
		{"root stays root", "{}", "{runAsUser: 0}", new(int64(0)), nil, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := typedPod(t, injected(t, podWithContexts(t, c.pod, c.container), options(t))).Spec.InitContainers[0]
			testkit.Equal(t, "the sidecar's security context", &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				RunAsUser:    c.uid, RunAsGroup: c.gid, RunAsNonRoot: c.nonRoot,
			}, got.SecurityContext)
			a, err := sidecarconfig.Decode(got.Env[0].Value)
			if err != nil || a.Private != c.private {
				t.Errorf("private: %t, %v; want %t", a.Private, err, c.private)
			}
		})
	}
}

// The policy's settings for the sidecar's container, together with the pod's own.
func TestSidecarSecurityContext(t *testing.T) {
	const standard, node = "{seccompProfile: {type: RuntimeDefault}}", "{seccompProfile: {type: Localhost, localhostProfile: x.json}}"
	for _, c := range []struct {
		name, pod, container string
		policy               policy.SecurityContext
		seccomp              string
		user                 string
		private              bool
	}{
		{name: "nothing", pod: "{}", container: "{}", user: "65534 65534"},
		{name: "the pod has a profile", pod: standard, container: "{}", seccomp: "RuntimeDefault", user: "65534 65534"},
		{name: "the container has", pod: "{}", container: standard, seccomp: "RuntimeDefault", user: "65534 65534"},
		{name: "one of the node, which is for Prometheus", pod: "{}", container: node, seccomp: "RuntimeDefault", user: "65534 65534"},
		{name: "always", pod: "{}", container: "{}", policy: policy.SecurityContext{SeccompProfile: "RuntimeDefault"},
			seccomp: "RuntimeDefault", user: "65534 65534"},
		{name: "never", pod: standard, container: standard, policy: policy.SecurityContext{SeccompProfile: "none"}, user: "65534 65534"},
		{name: "of the node", pod: standard, container: "{}", policy: policy.SecurityContext{SeccompProfile: "Localhost/a/b.json"},
			seccomp: "Localhost a/b.json", user: "65534 65534"},
		{name: "another user", pod: "{runAsUser: 1, runAsGroup: 2}", container: "{}",
			policy: policy.SecurityContext{RunAsUser: new(7), RunAsGroup: new(8)}, user: "7 8"},
		{name: "Prometheus's user", pod: "{runAsUser: 7, runAsGroup: 2}", container: "{}",
			policy: policy.SecurityContext{RunAsUser: new(7)}, user: "7 2", private: true},
		{name: "a user, and the pod names none", pod: "{}", container: "{}",
			policy: policy.SecurityContext{RunAsUser: new(7), RunAsGroup: new(0)}, user: "7 0"},
		{name: "beside root", pod: "{runAsUser: 0}", container: "{}", policy: policy.SecurityContext{RunAsUser: new(7)}, user: "7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := options(t)
			c.policy.SeccompProfile = stdcmp.Or(c.policy.SeccompProfile, policy.SeccompAuto)
			o.Policy.Sidecar.SecurityContext = c.policy
			sidecar := typedPod(t, injected(t, podWithContexts(t, c.pod, c.container), o)).Spec.InitContainers[0]
			s := sidecar.SecurityContext
			var seccomp string
			if p := s.SeccompProfile; p != nil {
				seccomp = string(p.Type)
				if p.LocalhostProfile != nil {
					seccomp += " " + *p.LocalhostProfile
				}
			}
			user := fmt.Sprint(*s.RunAsUser)
			if s.RunAsGroup != nil {
				user += fmt.Sprint(" ", *s.RunAsGroup)
			}
			a, err := sidecarconfig.Decode(sidecar.Env[0].Value)
			if err != nil || seccomp != c.seccomp || user != c.user || a.Private != c.private {
				t.Errorf("profile %q, user %s, private %t, %v", seccomp, user, a.Private, err)
			}
			if s.RunAsNonRoot == nil || !*s.RunAsNonRoot {
				t.Error("runAsNonRoot is not set")
			}
		})
	}
}

// The policy's user determines whether the sidecar can read the configuration.
func TestPolicysUserReadsTheSource(t *testing.T) {
	data := podOf(t, `
securityContext: {runAsUser: 1, runAsGroup: 0}
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c, defaultMode: 0440}}]`)
	o := options(t)
	injected(t, data, o)
	o.Policy.Sidecar.SecurityContext = policy.SecurityContext{RunAsUser: new(7), RunAsGroup: new(7)}
	if d := refusal(t, data, o); d.Reason != UnreadableSource || !strings.Contains(d.Warning, "user 7") {
		t.Errorf("%s: %s", d.Reason, d.Warning)
	}
}

func TestMetricsPort(t *testing.T) {
	const other = "initContainers: [{name: i, restartPolicy: Always, "
	everything := "args: ['9095 19095 29095 19195 29195 19295 29295 19395']}]"
	for _, c := range []struct {
		name, spec string
		want       string // name and number; empty if there is no port
	}{
		{"nothing takes it", "", "ampbridge 9095"},
		{"with hostNetwork the port would be the node's", "hostNetwork: true", ""},

		{"declared", other + "ports: [{containerPort: 9095}]}]", "ampbridge 19095"},
		{"declared, and the next one too", other + "ports: [{containerPort: 9095}, {containerPort: 19095}]}]", "ampbridge 29095"},
		{"all are taken", other + everything, ""},
		{"the name is taken", other + "ports: [{name: ampbridge, containerPort: 1}]}]", "ampbridge-1 9095"},

		{"an address in an argument", other + "args: ['--web.listen-address=:9095']}]", "ampbridge 19095"},
		{"a port in an argument", other + "args: [-server.grpc-listen-port=9095]}]", "ampbridge 19095"},
		{"as two arguments, in the command", other + "command: [x, --port, '9095']}]", "ampbridge 19095"},
		{"in a script", other + "command: [sh, -c, 'exec x --listen 0.0.0.0:9095 --y']}]", "ampbridge 19095"},
		{"in a variable", other + "env: [{name: LISTEN, value: ':9095'}]}]", "ampbridge 19095"},
		{"in a probe", other + "readinessProbe: {httpGet: {port: 9095}}}]", "ampbridge 19095"},
		{"in a probe of gRPC", other + "livenessProbe: {grpc: {port: 9095}}}]", "ampbridge 19095"},
		{"a part of another number", other + "args: [--a=19095, --b=90951, --c=290950]}]", "ampbridge 9095"},

		{"Loki", other + "image: 'docker.io/grafana/loki:3.0.0'}]", "ampbridge 19095"},
		{"Mimir", other + "image: grafana/mimir}]", "ampbridge 19095"},
		{"Tempo", other + "image: 'grafana/tempo@sha256:00'}]", "ampbridge 19095"},
		{"promtail, mirrored under another name, by its program", other + "image: own/shipper, command: [/usr/bin/promtail]}]",
			"ampbridge 19095"},
		{"promtail, by the container's name", "initContainers: [{name: my-promtail, image: own/shipper}]", "ampbridge 19095"},
		{"a word that holds one of the names", other + "image: own/temporary}]", "ampbridge 9095"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := podOf(t, c.spec+`
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`)
			after := decode(t, injected(t, data, options(t)))
			a, err := sidecarconfig.Decode(encodedConfig(after))
			testkit.Must(t, err)
			var mark Injected
			testkit.Must(t, json.Unmarshal([]byte(after.Metadata.Annotations[AnnotationInjected]), &mark))
			var got string
			for _, p := range after.Spec.InitContainers[0].Ports {
				got = fmt.Sprint(p.Name, " ", p.ContainerPort)
				if a.MetricsPort != p.ContainerPort || mark.MetricsPort != p.ContainerPort {
					t.Errorf("the sidecar config has %d, the annotation %d", a.MetricsPort, mark.MetricsPort)
				}
			}
			if got == "" && (a.MetricsPort != sidecarconfig.NoMetrics || mark.MetricsPort != 0) {
				t.Errorf("no port: the sidecar config has %d, the annotation %d", a.MetricsPort, mark.MetricsPort)
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestAnotherWebhookInBetween(t *testing.T) {
	o := options(t)
	whole := injected(t, readFile(t, "chart.in.json"), o)
	// amazon-eks-pod-identity-webhook does this to every container when it is called again.
	eks := apply(t, whole, []jsonpatch.Operation{
		adding("/spec/volumes/0", map[string]any{"name": "aws-iam-token", "projected": map[string]any{"sources": []any{}}}),
		adding("/spec/initContainers/0/env/-", EnvVar{Name: "AWS_ROLE_ARN", Value: "arn:aws:iam::111122223333:role/other"}),
		adding(
			"/spec/initContainers/0/volumeMounts/-",
			VolumeMount{Name: "aws-iam-token", MountPath: "/var/run/secrets/eks.amazonaws.com/serviceaccount"},
		),
	})
	pod := decode(t, eks)
	if ops, d := Inject(pod, granted(t, o.Policy, "prom"), o); len(ops) != 0 || d.Reason != AlreadyInjected {
		t.Errorf("%d operations, %s", len(ops), d.Reason)
	}
}

// The chart allows the auditor to reach every port that a sidecar can have.
func TestNetworkPolicyKnowsThePorts(t *testing.T) {
	text := testkit.ReadFile(t, "../../charts/ampbridge/templates/networkpolicy.yaml")
	list := "list"
	for _, port := range metricsPorts {
		list += fmt.Sprintf(" %d", port)
	}
	if !strings.Contains(text, list+" }}") {
		t.Errorf("the NetworkPolicy does not have %q", list)
	}
}

// The annotation identifies outdated injections: its hash depends only on the sidecar config.
func TestInjectedAnnotation(t *testing.T) {
	read := func(o Options, image string) Injected {
		o.Image = image
		var m Injected
		pod := decode(t, injected(t, readFile(t, "operator.in.json"), o))
		testkit.Must(t, json.Unmarshal([]byte(pod.Metadata.Annotations[AnnotationInjected]), &m))
		return m
	}
	o := options(t)
	first := read(o, testImage)
	if first.Version != sidecarconfig.VersionRelay || !slices.Equal(first.Destinations, []string{"central"}) || len(first.Policy) != 12 {
		t.Errorf("%+v", first)
	}
	testkit.Equal(t, "the mark with another image", first, read(o, "another"))
	o.Policy.Session.Duration *= 2
	if other := read(o, testImage); other.Policy == first.Policy {
		t.Error("another session duration, and the same hash")
	}
}

func TestImagePullSecrets(t *testing.T) {
	for _, c := range []struct{ name, have, want string }{
		{"none", "", "registry other"},
		{"one of them", "imagePullSecrets: [{name: other}, {name: own}]", "other own registry"},
		{"all", "imagePullSecrets: [{name: other}, {name: registry}]", "other registry"},
	} {
		o := options(t)
		o.Policy.Sidecar.ImagePullSecrets = []policy.SecretRef{{Name: "registry"}, {Name: "other"}, {Name: "registry"}}
		pod := decode(t, injected(t, podOf(t, c.have+`
containers:
- {name: prometheus, image: prom/prometheus, args: [--config.file=/c/p.yml, --config.auto-reload], volumeMounts: [{name: c, mountPath: /c}]}
volumes: [{name: c, configMap: {name: c}}]`), o))
		var names []string
		for _, s := range pod.Spec.ImagePullSecrets {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func BenchmarkInject(b *testing.B) {
	o, data := options(b), readFile(b, "operator.in.json")
	d := granted(b, o.Policy, "monitoring")
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			decode(b, data)
		}
	})
	b.Run("inject", func(b *testing.B) {
		pod := decode(b, data)
		b.ReportAllocs()
		for b.Loop() {
			if ops, _ := Inject(pod, d, o); len(ops) == 0 {
				b.Fatal("not injected")
			}
		}
	})
}
