package kubelet

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestContainerSees(t *testing.T) {
	t.Setenv("HOST_ONLY", "leaked")
	cm := configMap(t, map[string]string{"LEVEL": "debug", "REF": "$(NAME)"})
	c := container("main", "report", "$(GREETING)", "$$(GREETING)", "$(UNKNOWN)")
	c.EnvFrom = []corev1.EnvFromSource{
		{Prefix: "CM_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name}}},
	}
	field := func(path string) *corev1.EnvVarSource {
		return &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}
	}
	c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1500m"), "memory": resource.MustParse("100Mi")}
	c.Env = append(
		c.Env,
		corev1.EnvVar{Name: "GREETING", Value: "hello $(NAME) at $(CM_LEVEL)"},
		corev1.EnvVar{Name: "POD", ValueFrom: field("metadata.name")},
		corev1.EnvVar{Name: "APP", ValueFrom: field("metadata.labels['app']")},
		corev1.EnvVar{Name: "SA", ValueFrom: field("spec.serviceAccountName")},
		corev1.EnvVar{Name: "IP", ValueFrom: field("status.podIP")},
		corev1.EnvVar{
			Name:      "CPU",
			ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu"}},
		},
		corev1.EnvVar{
			Name: "MEM",
			ValueFrom: &corev1.EnvVarSource{
				ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")},
			},
		},
		corev1.EnvVar{
			Name: "KEY",
			ValueFrom: &corev1.EnvVarSource{
				ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name},
					Key:                  "LEVEL",
				},
			},
		},
		corev1.EnvVar{
			Name: "MAYBE",
			ValueFrom: &corev1.EnvVarSource{
				ConfigMapKeyRef: &corev1.ConfigMapKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name},
					Key:                  "no",
					Optional:             new(true),
				},
			},
		},
		corev1.EnvVar{Name: "API", Value: "$(KUBERNETES_SERVICE_HOST)"},
	)
	pod := newPod(c)
	pod.Spec.HostAliases = []corev1.HostAlias{{IP: "127.0.0.9", Hostnames: []string{"sts.example"}}}
	pod.Spec.Containers[0].Args = append(pod.Spec.Containers[0].Args, "/etc/hosts", "w:/work/file", "w:/tmp/file", "w:/dev/null")
	p := run(t, pod)
	eventually(t, p, "the end", ended(p))
	got := newestReport(t, p.Container("main"))

	wantArgs := []string{
		"/bin/probe",
		"report",
		"hello main at debug",
		"$(GREETING)",
		"$(UNKNOWN)",
		"/etc/hosts",
		"w:/work/file",
		"w:/tmp/file",
		"w:/dev/null",
	}
	if diff := cmp.Diff(wantArgs, got.Args); diff != "" {
		t.Errorf("arguments (-want +got):\n%s", diff)
	}
	want := map[string]string{
		"NAME": "main", "GREETING": "hello main at debug", "POD": p.spec.Name, "APP": "probe", "SA": "default", "IP": "127.0.0.1",
		"CPU": "2", "MEM": "100", "KEY": "debug", "MAYBE": "(unset)", "API": "127.0.0.1", "CM_LEVEL": "debug", "CM_REF": "$(NAME)",
		"FROM_IMAGE": "yes", "HOME": "/", "HOSTNAME": p.spec.Name, "HOST_ONLY": "(unset)",
		"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	for name, value := range want {
		if got.env(name) != value {
			t.Errorf("environment: %s is %q, want %q", name, got.env(name), value)
		}
	}
	if got.Dir != "/work" || got.Hostname != p.spec.Name || got.UID != 65532 || got.GID != 0 {
		t.Errorf(
			"got directory %s, host %s, user %d, group %d, want the image's directory and user, the pod's name, group 0",
			got.Dir,
			got.Hostname,
			got.UID,
			got.GID,
		)
	}
	if want := "CapPrm: 0000000000000000;CapEff: 0000000000000000;CapAmb: 0000000000000000;"; got.Caps != want {
		t.Errorf("capabilities: got %s, want %s", got.Caps, want)
	}
	if diff := cmp.Diff([]string{"bin", "dev", "etc", "proc", "tmp", "var", "work"}, got.Root); diff != "" {
		t.Errorf("root directory (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"/work/file": "", "/tmp/file": "", "/dev/null": ""}, got.Writes); diff != "" {
		t.Errorf("writes (-want +got):\n%s", diff)
	}
	if hosts := got.Files["/etc/hosts"]; !strings.Contains(hosts, "127.0.0.9\tsts.example\n") {
		t.Errorf("/etc/hosts lacks the alias:\n%s", hosts)
	}
}

// TestRootHasNoCapabilities checks that user 0 of a container does not keep the namespace's capabilities
// after the exec.
func TestRootHasNoCapabilities(t *testing.T) {
	pod := newPod(container("main", "report"))
	pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(0))}
	p := run(t, pod)
	eventually(t, p, "the end", ended(p))
	got := newestReport(t, p.Container("main"))
	if want := "CapPrm: 0000000000000000;CapEff: 0000000000000000;CapAmb: 0000000000000000;"; got.UID != 0 || got.Caps != want {
		t.Errorf("got user %d with %s, want user 0 without any", got.UID, got.Caps)
	}
}

func TestContainerCannotStart(t *testing.T) {
	tests := map[string]struct {
		change          func(*corev1.Container)
		reason, message string
	}{
		"an image that the node has not": {
			func(c *corev1.Container) { c.Image = "registry.example/other:v1" },
			"ErrImagePull", "registry.example/other:v1",
		},
		"root where the pod forbids it": {
			func(c *corev1.Container) {
				c.SecurityContext = &corev1.SecurityContext{RunAsUser: new(int64(0)), RunAsNonRoot: new(true)}
			},
			"CreateContainerConfigError", "container has runAsNonRoot and image will run as root",
		},
		"a variable from a missing Secret": {
			func(c *corev1.Container) {
				c.Env = []corev1.EnvVar{{Name: "X", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{
					LocalObjectReference: corev1.LocalObjectReference{Name: "no-such"}, Key: "k"}}}}
			},
			"CreateContainerConfigError", `env X: secrets "no-such" not found`,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := container("main", "report")
			tt.change(&c)
			p := run(t, newPod(c))
			var got *corev1.ContainerStateWaiting
			eventually(t, p, tt.reason, func() bool {
				got = p.Container("main").Status().State.Waiting
				return got != nil && got.Reason == tt.reason
			})
			if !strings.Contains(got.Message, tt.message) {
				t.Errorf("got message %q, want it to say %q", got.Message, tt.message)
			}
		})
	}
}

func TestMissingProgramIsAnExit(t *testing.T) {
	c := container("main")
	c.Command = []string{"/bin/no-such"}
	p := run(t, newPod(c))
	eventually(t, p, "the end", ended(p))
	got := p.Container("main").Status().State.Terminated
	if got.ExitCode != 128 || got.Reason != "StartError" || !strings.Contains(got.Message, "/bin/no-such") {
		t.Errorf("got %+v, want exit code 128, StartError and the program's name", got)
	}
}

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"":             "",
		"plain":        "plain",
		"$(A)":         "1",
		"x$(A)y$(A)z":  "x1y1z",
		"$(B)":         "$(A)", // once
		"$(EMPTY)":     "",
		"$(C)":         "$(C)",
		"$$(A)":        "$(A)",
		"$$$(A)":       "$1",
		"$$":           "$",
		"$":            "$",
		"a$":           "a$",
		"$A":           "$A",
		"$(A":          "$(A",
		"$(A $(A)":     "$(A $(A)",
		"$()":          "$()",
		"100% $x $(A)": "100% $x 1",
	} {
		got := expand(in, func(name string) (string, bool) { v, ok := vars[name]; return v, ok })
		if got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestImagesFind(t *testing.T) {
	images := Images{
		{Match: "prometheus/prometheus:v3.1.0", WorkingDir: "old"},
		{Match: "prometheus/prometheus", WorkingDir: "new"},
		{Match: "localhost:5000/x", WorkingDir: "port"},
	}
	for ref, want := range map[string]string{
		"quay.io/prometheus/prometheus:v3.1.0":               "old",
		"quay.io/prometheus/prometheus:v3.15.0":              "new",
		"prometheus/prometheus":                              "new",
		"quay.io/prometheus/prometheus:v3.15.0@sha256:abc":   "new",
		"quay.io/my-prometheus/prometheus":                   "",
		"quay.io/prometheus/prometheus-operator":             "",
		"localhost:5000/x":                                   "port",
		"localhost:5000/x:v1":                                "port",
		"quay.io/prometheus-operator/prometheus-config-load": "",
	} {
		got, found := images.find(ref)
		if got.WorkingDir != want || found != (want != "") {
			t.Errorf("%s: got image %q, found %t, want %q", ref, got.WorkingDir, found, want)
		}
	}
}

func TestImageArgv(t *testing.T) {
	image := Image{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}
	for _, tt := range []struct{ command, args, want []string }{
		{nil, nil, []string{"entry", "cmd"}},
		{nil, []string{"a"}, []string{"entry", "a"}},
		{[]string{"c"}, nil, []string{"c"}},
		{[]string{"c"}, []string{"a"}, []string{"c", "a"}},
	} {
		if diff := cmp.Diff(tt.want, image.argv(tt.command, tt.args)); diff != "" {
			t.Errorf("command %v, args %v (-want +got):\n%s", tt.command, tt.args, diff)
		}
	}
}
