package inject

import (
	stdjson "encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// lenient are the options that the webhook uses.
var lenient = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// view is a [Pod] without the members that have another form in a v1.Pod.
type view struct {
	Pod     Pod
	Volumes []corev1.Volume
	Sources []volumeSource
	Ports   []intstr.IntOrString
	// Commands are the commands of probes.
	Commands [][]string
	EnvFrom  []int
	Windows  []bool
}

// ours returns the view of a decoded pod.
func ours(t *testing.T, pod Pod) view {
	t.Helper()
	v := view{Pod: pod, Windows: []bool{len(pod.Spec.SecurityContext.WindowsOptions) > 0}}
	for _, volume := range pod.Spec.Volumes {
		text, err := volume.renamed(volume.Name)
		testkit.Must(t, err)
		var decoded corev1.Volume
		if err := utiljson.Unmarshal(text, &decoded); err != nil {
			t.Fatalf("volume %q: %v: %s", volume.Name, err, text)
		}
		v.Volumes = append(v.Volumes, decoded)
		var source volumeSource
		if volume.Source != "" {
			if source, err = volume.source(); err != nil {
				t.Fatalf("volume %q: %v: %s", volume.Name, err, volume.Source)
			}
		}
		v.Sources = append(v.Sources, source)
	}
	for c := range pod.all {
		for _, p := range []Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
			v.Commands = append(v.Commands, p.Exec.Command)
			for _, port := range []string{p.HTTPGet.Port, p.TCPSocket.Port, p.GRPC.Port} {
				var decoded intstr.IntOrString
				if port != "" {
					if err := decoded.UnmarshalJSON([]byte(port)); err != nil {
						t.Fatalf("port %s: %v", port, err)
					}
				}
				v.Ports = append(v.Ports, decoded)
			}
		}
		v.EnvFrom = append(v.EnvFrom, len(c.EnvFrom))
		v.Windows = append(v.Windows, len(c.SecurityContext.WindowsOptions) > 0)
	}
	return v
}

// theirs returns the view of a pod that Kubernetes's own types have decoded.
func theirs(pod *corev1.Pod) view {
	v := view{Volumes: pod.Spec.Volumes}
	for i := range pod.Spec.Volumes {
		v.Sources = append(v.Sources, sourceIn(&pod.Spec.Volumes[i].VolumeSource))
	}
	m, s := &pod.ObjectMeta, &pod.Spec
	v.Pod.Metadata = Metadata{
		Name: m.Name, GenerateName: m.GenerateName, Namespace: m.Namespace, Labels: m.Labels, Annotations: m.Annotations,
	}
	for _, o := range m.OwnerReferences {
		v.Pod.Metadata.Owners = append(v.Pod.Metadata.Owners, Owner{o.Kind, o.Name, valueOf(o.Controller)})
	}
	v.Pod.Spec = Spec{
		ServiceAccountName: s.ServiceAccountName, HostNetwork: s.HostNetwork, HostPID: s.HostPID,
		ShareProcessNamespace: valueOf(s.ShareProcessNamespace), NodeSelector: s.NodeSelector, PriorityClassName: s.PriorityClassName,
		ActiveDeadlineSeconds: s.ActiveDeadlineSeconds,
	}
	v.Pod.Spec.OS.Name = string(valueOf(s.OS).Name)
	v.Pod.Spec.Resources = Resources{valueOf(s.Resources).Requests, valueOf(s.Resources).Limits}
	security := valueOf(s.SecurityContext)
	v.Pod.Spec.SecurityContext = SecurityContext{
		FSGroup: security.FSGroup, SupplementalGroups: security.SupplementalGroups,
		RunAsUser: security.RunAsUser, RunAsGroup: security.RunAsGroup,
		SeccompProfile: seccompIn(security.SeccompProfile), RunAsNonRoot: valueOf(security.RunAsNonRoot),
	}
	v.Windows = []bool{security.WindowsOptions != nil}
	for _, secret := range s.ImagePullSecrets {
		v.Pod.Spec.ImagePullSecrets = append(v.Pod.Spec.ImagePullSecrets, policy.SecretRef{Name: secret.Name})
	}
	for _, list := range []struct {
		from []corev1.Container
		to   *[]Container
	}{{s.InitContainers, &v.Pod.Spec.InitContainers}, {s.Containers, &v.Pod.Spec.Containers}} {
		for _, c := range list.from {
			*list.to = append(*list.to, v.container(c))
		}
	}
	return v
}

func (v *view) container(c corev1.Container) Container {
	security := valueOf(c.SecurityContext)
	out := Container{
		Name: c.Name, Image: c.Image, Command: c.Command, Args: c.Args, WorkingDir: c.WorkingDir,
		RestartPolicy: string(valueOf(c.RestartPolicy)),
		SecurityContext: SecurityContext{
			RunAsUser: security.RunAsUser, RunAsGroup: security.RunAsGroup,
			SeccompProfile: seccompIn(security.SeccompProfile), RunAsNonRoot: valueOf(security.RunAsNonRoot),
			Privileged:               valueOf(security.Privileged),
			AllowPrivilegeEscalation: setFalse(security.AllowPrivilegeEscalation != nil && !*security.AllowPrivilegeEscalation),
			ReadOnlyRootFilesystem:   valueOf(security.ReadOnlyRootFilesystem),
		},
		Resources: Resources{c.Resources.Requests, c.Resources.Limits},
	}
	for _, e := range c.Env {
		variable := EnvVar{Name: e.Name, Value: e.Value}
		if e.ValueFrom != nil {
			variable.ValueFrom = &ValueFrom{FieldRef{valueOf(e.ValueFrom.FieldRef).FieldPath}}
		}
		out.Env = append(out.Env, variable)
	}
	for _, p := range c.Ports {
		out.Ports = append(out.Ports, Port{p.Name, p.ContainerPort})
	}
	for _, m := range c.VolumeMounts {
		out.VolumeMounts = append(out.VolumeMounts, VolumeMount{m.Name, m.MountPath, m.SubPath, m.SubPathExpr, m.ReadOnly})
	}
	for _, p := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		probe := valueOf(p)
		v.Commands = append(v.Commands, valueOf(probe.Exec).Command)
		v.Ports = append(v.Ports,
			valueOf(probe.HTTPGet).Port, valueOf(probe.TCPSocket).Port, intstr.FromInt32(valueOf(probe.GRPC).Port))
	}
	v.EnvFrom = append(v.EnvFrom, len(c.EnvFrom))
	v.Windows = append(v.Windows, security.WindowsOptions != nil)
	return out
}

func sourceIn(s *corev1.VolumeSource) (v volumeSource) {
	if c := s.ConfigMap; c != nil {
		v.ConfigMap = filesIn(c.DefaultMode, c.Items)
	}
	if c := s.Secret; c != nil {
		v.Secret = filesIn(c.DefaultMode, c.Items)
	}
	if e := s.EmptyDir; e != nil {
		v.EmptyDir = &emptyDir{Medium: string(e.Medium)}
		if e.SizeLimit != nil {
			v.EmptyDir.SizeLimit = policy.Quantity(e.SizeLimit.String())
		}
	}
	v.HostPath.Type = string(valueOf(valueOf(s.HostPath).Type))
	if p := s.Projected; p != nil {
		v.Projected = &projectedFiles{DefaultMode: wide(p.DefaultMode)}
		for _, source := range p.Sources {
			var to projectedSource
			if c := source.ConfigMap; c != nil {
				to.ConfigMap = filesIn(nil, c.Items)
			}
			if c := source.Secret; c != nil {
				to.Secret = filesIn(nil, c.Items)
			}
			if d := source.DownwardAPI; d != nil {
				to.DownwardAPI = &volumeFiles{}
				for _, item := range d.Items {
					to.DownwardAPI.Items = append(to.DownwardAPI.Items, fileItem{item.Path, wide(item.Mode)})
				}
			}
			v.Projected.Sources = append(v.Projected.Sources, to)
		}
	}
	return v
}

func filesIn(mode *int32, items []corev1.KeyToPath) *volumeFiles {
	files := &volumeFiles{DefaultMode: wide(mode)}
	for _, item := range items {
		files.Items = append(files.Items, fileItem{item.Path, wide(item.Mode)})
	}
	return files
}

func wide(n *int32) *int64 {
	if n == nil {
		return nil
	}
	return new(int64(*n))
}

func seccompIn(p *corev1.SeccompProfile) Seccomp {
	return Seccomp{string(valueOf(p).Type), valueOf(valueOf(p).LocalhostProfile)}
}

// valueOf returns the value that p points to; zero if p is nil.
func valueOf[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// comparing compares views. The lists that [theirs] creates do not distinguish an empty list from
// none.
var comparing = cmp.Options{
	cmp.FilterPath(func(p cmp.Path) bool {
		switch p.String() {
		case "Pod.Spec.Volumes", "Pod.Spec.InitContainers.EnvFrom", "Pod.Spec.Containers.EnvFrom",
			"Pod.Spec.InitContainers.LivenessProbe", "Pod.Spec.InitContainers.ReadinessProbe", "Pod.Spec.InitContainers.StartupProbe",
			"Pod.Spec.Containers.LivenessProbe", "Pod.Spec.Containers.ReadinessProbe", "Pod.Spec.Containers.StartupProbe",
			"Pod.Spec.SecurityContext.WindowsOptions", "Pod.Spec.InitContainers.SecurityContext.WindowsOptions",
			"Pod.Spec.Containers.SecurityContext.WindowsOptions",
			// These exist only for pods.
			"Pod.Spec.InitContainers.SecurityContext.FSGroup", "Pod.Spec.InitContainers.SecurityContext.SupplementalGroups",
			"Pod.Spec.Containers.SecurityContext.FSGroup", "Pod.Spec.Containers.SecurityContext.SupplementalGroups":
			return true
		// This is not a member of the JSON text.
		case "Pod.prometheus":
			return true
		// These exist only for containers.
		case "Pod.Spec.SecurityContext.Privileged", "Pod.Spec.SecurityContext.AllowPrivilegeEscalation",
			"Pod.Spec.SecurityContext.ReadOnlyRootFilesystem", "Pod.Spec.SecurityContext.Capabilities",
			// TestDropsAll: it is also false for other notations with the same meaning.
			"Pod.Spec.InitContainers.SecurityContext.Capabilities", "Pod.Spec.Containers.SecurityContext.Capabilities":
			return true
		}
		return false
	}, cmp.Ignore()),
	cmp.Comparer(func(a, b resource.Quantity) bool { return a.Cmp(b) == 0 && a.String() == b.String() }),
	cmp.Comparer(func(a, b intstr.IntOrString) bool {
		// In Kubernetes's type a name stays visible if null follows it.
		return a == b || a.Type == intstr.Int && a.StrVal != "" || b.Type == intstr.Int && b.StrVal != ""
	}),
	cmp.FilterValues(func(a, b []EnvVar) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []Port) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []VolumeMount) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []Owner) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []policy.SecretRef) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []Container) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []fileItem) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.FilterValues(func(a, b []projectedSource) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
	cmp.Comparer(func(a, b policy.Quantity) bool { // in any notation; a number counts as none
		x, err := resource.ParseQuantity(string(a))
		y, problem := resource.ParseQuantity(string(b))
		return a == "" || b == "" || err == nil && problem == nil && x.Cmp(y) == 0
	}),
	cmp.FilterValues(func(a, b []corev1.Volume) bool { return len(a)+len(b) == 0 }, cmp.Ignore()),
}

// decodesAlike checks that [Pod] and Kubernetes's own types decode the same from a pod. It reports
// whether Kubernetes's types accept the text as a pod.
func decodesAlike(t *testing.T, data []byte) bool {
	t.Helper()
	var pod Pod
	var reference corev1.Pod
	err, refused := json.Unmarshal(data, &pod, lenient), utiljson.Unmarshal(data, &reference)
	switch {
	case refused != nil:
		return false // a skipped member may be wrong
	case err != nil:
		t.Errorf("%v: %s", err, data)
		return true
	}
	testkit.Equal(t, fmt.Sprintf("%s\nas v1.Pod and as Pod", data), theirs(&reference), ours(t, pod), comparing)
	return true
}

// fixtures returns all pods and pod templates in the repository's fixtures.
func fixtures(t testing.TB) [][]byte {
	t.Helper()
	var found [][]byte
	var collect func(any)
	collect = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if spec, ok := v["spec"].(map[string]any); ok {
				if _, ok := spec["containers"].([]any); ok {
					text, err := stdjson.Marshal(v)
					testkit.Must(t, err)
					found = append(found, text)
				}
			}
			for _, member := range v {
				collect(member)
			}
		case []any:
			for _, item := range v {
				collect(item)
			}
		}
	}
	err := filepath.WalkDir("../..", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains([]string{".json", ".yaml", ".yml"}, filepath.Ext(path)) ||
			!strings.Contains(path, "/testdata/") && !strings.HasPrefix(path, "../../test/") {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for document := range strings.SplitSeq("\n"+string(data), "\n---") {
			var v any
			if yaml.Unmarshal([]byte(document), &v) == nil { // templates of charts are not YAML
				collect(v)
			}
		}
		return nil
	})
	testkit.Must(t, err)
	return found
}

func TestDecodeFixtures(t *testing.T) {
	all := fixtures(t)
	for _, data := range all {
		if !decodesAlike(t, data) {
			t.Errorf("Kubernetes does not take the fixture: %s", data)
		}
	}
	if len(all) < 15 {
		t.Errorf("only %d pods were found", len(all))
	}
}

// peculiar are unusual pods that a client can write and that Kubernetes accepts.
var peculiar = []string{
	`null`, `{}`, ` {"metadata" : null , "spec":null}`,
	`{"Metadata":{"name":"a"},"metadata":{"Name":"b","NAME":"c"},"spec":{"hostnetwork":true,"HostPID":true}}`,
	`{"metadata":{"name":"a","name":"b","name":null,"labels":{"a":"1","a":"2"},"labels":{"b":null}}}`,
	`{"metadata":{"labels":{"a":"1"},"labels":null,"annotations":{}}}`,
	`{"\u006detadata":{"n\u0061me":"\u0061\ud83d\ude00\n"},"spec":{"serviceAccountName":"\ud800"}}`,
	"{\"metadata\":{\"name\":\"\xff\",\"labels\":{\"\xfe\":\"\xff\"}},\"spec\":{\"volumes\":[{\"name\":\"v\",\"\xff\":1}]}}",
	`{"metadata":{"ownerReferences":[{"kind":"A","controller":true,"controller":null},null,{"controller":null}]}}`,
	`{"spec":{"containers":[],"initContainers":null,"volumes":[],"imagePullSecrets":[null,{"name":"a"},{"name":null}]}}`,
	`{"spec":{"containers":[null,{"name":"a","args":null,"command":[],"env":[null],"ports":[{}],"volumeMounts":[{"readOnly":true}]}]}}`,
	`{"spec":{"containers":[{"name":"a","args":["x","y","z"]},{"name":"b"}],"containers":[{"args":[null]},null,{"image":"c"}]}}`,
	`{"spec":{"containers":[{"name":"a"}],"containers":[]}}`,
	`{"spec":{"containers":[{"args":["1","2","3","4","5","6","7","8","9","10","11","12","13","14","15","16","17","18"]}]}}`,
	`{"spec":{"containers":[{"resources":{"requests":{"cpu":1,"memory":"1Gi","x":null},"limits":{"cpu":"1e3","cpu":"0.1"}}}]}}`,
	`{"spec":{"resources":{"limits":{"cpu":"1"}},"resources":{"requests":{}},"os":{"name":"windows"},"os":null}}`,
	`{"spec":{"resources":{"limits":{"cpu":"1"}},"resources":null}}`,
	`{"spec":{"securityContext":{"fsGroup":0,"runAsUser":-0,"runAsGroup":null,"supplementalGroups":[1,null,3],"windowsOptions":{}}}}`,
	`{"spec":{"securityContext":{"fsGroup":1,"windowsOptions":null},"securityContext":null,"activeDeadlineSeconds":9223372036854775807}}`,
	`{"spec":{"shareProcessNamespace":true,"shareProcessNamespace":null,"hostPID":true,"hostPID":null}}`,
	`{"spec":{"containers":[{"securityContext":{"windowsOptions":{"hostProcess":true}},"envFrom":[null,{"prefix":"A"}]}]}}`,
	`{"spec":{"containers":[{"env":[{"name":"a","valueFrom":{}},{"valueFrom":{"fieldRef":{"fieldPath":"x"},"fieldRef":null}},` +
		`{"value":"b","valueFrom":{"secretKeyRef":{"key":"k"}}},{"valueFrom":null}]}]}}`,
	`{"spec":{"containers":[{"livenessProbe":{"httpGet":{"port":"web"},"grpc":{"port":1}},"readinessProbe":{"tcpSocket":{"port":80,` +
		`"port":null}},"startupProbe":{"httpGet":null,"grpc":{"port":-1}},"startupProbe":null,"restartPolicy":"Always","restartPolicy":null}]}}`,
	`{"spec":{"volumes":[{"configMap":{"name":"c","items":[{"key":"a"}]},"name":"v"},{"name":"e","emptyDir":{},"future":{"a":[1]}},null,` +
		`{"name":"n"},{"secret":null,"name":"o","hostPath":{"path":"/"}}],"volumes":[{"configMap":{"optional":true}}]}}`,
	`{"spec":{"volumes":[{"configMap":{"defaultMode":292,"defaultMode":null,"items":[{"path":"a","mode":0},null]}},{"secret":{"items":[],` +
		`"defaultMode":256}},{"projected":{"defaultMode":1,"sources":[null,{"configMap":{"items":[{"path":"x/y"}]},"secret":null},` +
		`{"downwardAPI":{"items":[{"path":"l","mode":2,"fieldRef":{"fieldPath":"metadata.labels"}}]}}]}},{"hostPath":{"type":"File",` +
		`"type":null}},{"emptyDir":{"medium":"Memory","sizeLimit":"16Mi"}},{"emptyDir":{"sizeLimit":1}},{"ConfigMap":{"items":[1]}}]}}`,
	`{"spec":{"securityContext":{"runAsNonRoot":true,"runAsNonRoot":null,"seccompProfile":{"type":"Localhost"},` +
		`"seccompProfile":{"localhostProfile":"a","localhostProfile":null}}}}`,
	`{"spec":{"securityContext":{"runAsNonRoot":true,"seccompProfile":{"type":"Localhost","localhostProfile":"a"},"seccompProfile":null}}}`,
	`{"spec":{"containers":[{"securityContext":{"privileged":true,"privileged":null,"readOnlyRootFilesystem":true,` +
		`"readOnlyRootFilesystem":null,"allowPrivilegeEscalation":false,"allowPrivilegeEscalation":null,"capabilities":null}},` +
		`{"securityContext":{"privileged":true,"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":true,"capabilities":{"add":["A"]}}},` +
		`{"securityContext":{"privileged":false,"readOnlyRootFilesystem":false,"allowPrivilegeEscalation":false}}]}}`,
	`{"spec":{"initContainers":[{"startupProbe":{"exec":{"command":["a",null,"b"]}},"livenessProbe":{"exec":{"command":[]}},` +
		`"readinessProbe":{"exec":{"command":["a"]},"exec":null}},{"startupProbe":{"exec":{}}}]}}`,
	`{"future":{"a":[{"b":null}]},"spec":{"containers":[{"ports":[{"containerPort":2147483647}]}],"future":[[]]},"status":{"phase":"x"}}`,
}

// whole is a pod with every member that [Pod] has.
const whole = `{"metadata":{"name":"n","generateName":"g-","namespace":"s","labels":{"l":"1"},"annotations":{"a":"2"},
"ownerReferences":[{"kind":"StatefulSet","name":"o","controller":true}]},"spec":{"serviceAccountName":"a","hostNetwork":true,
"hostPID":true,"shareProcessNamespace":true,"os":{"name":"linux"},"nodeSelector":{"k":"v"},"priorityClassName":"p",
"activeDeadlineSeconds":1,"securityContext":{"fsGroup":2,"supplementalGroups":[3],"runAsUser":4,"runAsGroup":5,
"seccompProfile":{"type":"Localhost","localhostProfile":"f"},
"runAsNonRoot":true,"privileged":true,"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"capabilities":{"drop":["ALL"]},
"windowsOptions":{}},
"resources":{"requests":{"cpu":"1"},"limits":{"memory":"2"}},"imagePullSecrets":[{"name":"s"}],"initContainers":[{"name":"i"}],
"containers":[{"name":"c","image":"i","command":["c"],"args":["a"],"workingDir":"/w","restartPolicy":"Always",
"env":[{"name":"n","value":"v","valueFrom":{"fieldRef":{"fieldPath":"f"}}}],"envFrom":[{}],"ports":[{"name":"p","containerPort":6}],
"livenessProbe":{"exec":{"command":["l"]},"httpGet":{"port":7},"tcpSocket":{"port":8},"grpc":{"port":9}},
"readinessProbe":{"exec":{"command":["r"]},"httpGet":{"port":"r"},"tcpSocket":{"port":"s"},"grpc":{"port":10}},
"startupProbe":{"exec":{"command":["s"]},"httpGet":{"port":"t"},"tcpSocket":{"port":"u"},"grpc":{"port":11}},
"volumeMounts":[{"name":"m","mountPath":"/m","subPath":"s","subPathExpr":"e","readOnly":true}],
"securityContext":{"fsGroup":2,"supplementalGroups":[3],"runAsUser":12,"runAsGroup":13,
"seccompProfile":{"type":"Localhost","localhostProfile":"f"},
"runAsNonRoot":true,"privileged":true,"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true,"capabilities":{"drop":["ALL"]},
"windowsOptions":{}},
"resources":{"requests":{"cpu":"3"},"limits":{"memory":"4"}}}],"volumes":[{"name":"v","configMap":{}}]}}`

// No other test would notice a member that is forgotten here or decoded under another name.
func TestDecodeWholePod(t *testing.T) {
	pod := decode(t, []byte(whole))
	wantNoZero(t, "pod", reflect.ValueOf(*pod), "InitContainers")
	decodesAlike(t, []byte(whole))
}

func wantNoZero(t *testing.T, at string, v reflect.Value, but string) {
	t.Helper()
	switch {
	case v.IsZero():
		t.Errorf("%s is zero", at)
	case v.Kind() == reflect.Pointer:
		wantNoZero(t, at, v.Elem(), but)
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Struct:
		for i := range v.Len() {
			wantNoZero(t, fmt.Sprint(at, "[", i, "]"), v.Index(i), but)
		}
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Name != but {
				wantNoZero(t, at+"."+f.Name, v.Field(i), but)
			}
		}
	}
}

func TestDecodePeculiarPods(t *testing.T) {
	for _, text := range peculiar {
		if !decodesAlike(t, []byte(text)) {
			t.Errorf("Kubernetes does not take %s", text)
		}
	}
}

// A wrong type results in an error that names the place.
func TestDecodeWrongTypes(t *testing.T) {
	for text, want := range map[string]string{
		`[]`:                                  "JSON array",
		`{"metadata":1}`:                      "/metadata",
		`{"metadata":[{}]}`:                   "/metadata",
		`{"spec":"x"}`:                        "/spec",
		`{"spec":{"os":1}}`:                   "/spec/os",
		`{"metadata":{"name":true}}`:          "/metadata/name",
		`{"metadata":{"labels":[]}}`:          "/metadata/labels",
		`{"metadata":{"labels":{"a":1}}}`:     "/metadata/labels/a",
		`{"metadata":{"ownerReferences":{}}}`: "/metadata/ownerReferences",
		`{"metadata":{"ownerReferences":[{"controller":"true"}]}}`:           "/metadata/ownerReferences/0/controller",
		`{"spec":{"containers":[{},1]}}`:                                     "/spec/containers/1",
		`{"spec":{"containers":[{"args":"--x"}]}}`:                           "/spec/containers/0/args",
		`{"spec":{"containers":[{"args":["a",2]}]}}`:                         "/spec/containers/0/args/1",
		`{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}`:       "/spec/containers/0/ports/0/containerPort",
		`{"spec":{"containers":[{"ports":[{"containerPort":4294967296}]}]}}`: "/spec/containers/0/ports/0/containerPort",
		`{"spec":{"containers":[{"ports":[{"containerPort":1.5}]}]}}`:        "/spec/containers/0/ports/0/containerPort",
		`{"spec":{"activeDeadlineSeconds":9223372036854775808}}`:             "/spec/activeDeadlineSeconds",
		`{"spec":{"activeDeadlineSeconds":1e3}}`:                             "/spec/activeDeadlineSeconds",
		`{"spec":{"securityContext":{"supplementalGroups":["1"]}}}`:          "/spec/securityContext/supplementalGroups/0",
		`{"spec":{"containers":[{"resources":{"limits":{"cpu":"much"}}}]}}`:  "/spec/containers/0/resources/limits/cpu",
		`{"spec":{"volumes":[{"name":{}}]}}`:                                 "/spec/volumes/0/name",
		`{"spec":{"volumes":[{"name":"a"`:                                    "unexpected EOF",
		`{"spec":{"volumes":[}`:                                              "/spec/volumes",
		`{"spec":{}} {}`:                                                     "after top-level value",
	} {
		var pod Pod
		err := json.Unmarshal([]byte(text), &pod, lenient)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
		if utiljson.Unmarshal([]byte(text), &corev1.Pod{}) == nil {
			t.Errorf("Kubernetes takes %s", text)
		}
	}
}

// The kind of a volume is the member in its JSON.
func TestVolumeKinds(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"a"}`:                                          "no source",
		`{"configMap":{},"name":"a"}`:                           "configMap",
		`{"name":"a","zeta":{},"alpha":{}}`:                     "alpha",
		`{"name":"a","alpha":{},"secret":{}}`:                   "secret",
		`{"secret":{},"alpha":{},"zeta":{}}`:                    "secret",
		`{"secret":null,"hostPath":{"path":"/"}}`:               "hostPath",
		`{"emptyDir":{},"projected":{},"secret":null,"a":null}`: "projected",
		`{"emptyDir":null}`:                                     "emptyDir",
	} {
		var pod Pod
		testkit.Must(t, json.Unmarshal([]byte(`{"spec":{"volumes":[`+text+`]}}`), &pod))
		if got := pod.Spec.Volumes[0].kind(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

func TestDropsAll(t *testing.T) {
	for text, want := range map[string]dropsAll{
		`{"drop":["ALL"]}`:                     true,
		`{ "drop" : [ "ALL" ] }`:               true,
		`{"drop":["KILL","ALL","MKNOD"]}`:      true,
		`{"add":[],"drop":["ALL"]}`:            true,
		`{"drop":["ALL","B"],"add":["ALL"]}`:   false,
		`null`:                                 false,
		`{}`:                                   false,
		`{"drop":["NET_RAW"]}`:                 false,
		`{"add":["A"]}`:                        false,
		`{"drop":["ALL"],"add":["A"]}`:         false,
		`{"add":["A"],"drop":["ALL"]}`:         false,
		`{"drop":["ALL"],"drop":["B"]}`:        false,
		`{"drop":["ALL"]},"capabilities":null`: false,
	} {
		var pod Pod
		testkit.Must(t, json.Unmarshal([]byte(`{"spec":{"containers":[{"securityContext":{"capabilities":`+text+`}}]}}`), &pod, lenient))
		if got := pod.Spec.Containers[0].SecurityContext.Capabilities; got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// FuzzDecode looks for a pod that Kubernetes's own types decode differently.
func FuzzDecode(f *testing.F) {
	for _, text := range peculiar {
		f.Add([]byte(text))
	}
	for _, name := range pods {
		f.Add(readFile(f, name+".in.json"))
	}
	f.Add([]byte(whole))
	f.Fuzz(func(t *testing.T, data []byte) { decodesAlike(t, data) })
}
