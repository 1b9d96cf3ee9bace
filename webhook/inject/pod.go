package inject

import (
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
)

// Pod is what injection needs to see of a v1.Pod. Decode it with
// github.com/go-json-experiment/json; members that are not named here are
// skipped. It is for reading only.
type Pod struct {
	Metadata Metadata `json:"metadata"`
	Spec     Spec     `json:"spec"`
}

// Metadata is the part of ObjectMeta that matters here. Pods of a controller
// have a GenerateName and no Name at admission.
type Metadata struct {
	Name         string            `json:"name"`
	GenerateName string            `json:"generateName"`
	Namespace    string            `json:"namespace"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	Owners       []Owner           `json:"ownerReferences"`
}

// Owner is the part of OwnerReference that matters here.
type Owner struct {
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	Controller bool   `json:"controller"`
}

// Controller is the owner that creates the pod anew; zero: nobody does.
func (m *Metadata) Controller() Owner {
	for _, o := range m.Owners {
		if o.Controller {
			return o
		}
	}
	return Owner{}
}

// Spec is the part of PodSpec that matters here.
type Spec struct {
	ServiceAccountName    string             `json:"serviceAccountName"`
	HostNetwork           bool               `json:"hostNetwork"`
	HostPID               bool               `json:"hostPID"`
	ShareProcessNamespace bool               `json:"shareProcessNamespace"`
	OS                    OS                 `json:"os"`
	NodeSelector          map[string]string  `json:"nodeSelector"`
	PriorityClassName     string             `json:"priorityClassName"`
	ActiveDeadlineSeconds *int64             `json:"activeDeadlineSeconds"`
	SecurityContext       SecurityContext    `json:"securityContext"`
	Resources             Resources          `json:"resources"`
	ImagePullSecrets      []policy.SecretRef `json:"imagePullSecrets"`
	InitContainers        []Container        `json:"initContainers"`
	Containers            []Container        `json:"containers"`
	Volumes               []Volume           `json:"volumes"`
}

// OS is PodOS.
type OS struct {
	Name string `json:"name"`
}

// SecurityContext is what PodSecurityContext and a container's SecurityContext
// share and injection needs.
type SecurityContext struct {
	// FSGroup and SupplementalGroups are the pod's alone.
	FSGroup            *int64  `json:"fsGroup"`
	SupplementalGroups []int64 `json:"supplementalGroups"`

	RunAsUser      *int64  `json:"runAsUser"`
	RunAsGroup     *int64  `json:"runAsGroup"`
	SeccompProfile Seccomp `json:"seccompProfile"`
	RunAsNonRoot   bool    `json:"runAsNonRoot"`

	// The others are a container's alone.
	Privileged               bool           `json:"privileged"`
	AllowPrivilegeEscalation setFalse       `json:"allowPrivilegeEscalation"`
	ReadOnlyRootFilesystem   bool           `json:"readOnlyRootFilesystem"`
	Capabilities             dropsAll       `json:"capabilities"`
	WindowsOptions           jsontext.Value `json:"windowsOptions"`
}

// setFalse is true for a member that is false, and not absent.
type setFalse bool

// UnmarshalJSONFrom reads any value. It allocates nothing: every pod comes here.
func (f *setFalse) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	*f = value.Kind() == 'f'
	return err
}

// dropsAll is true for capabilities that drop all, and add none.
type dropsAll bool

var onlyDrops = regexp.MustCompile(`^\{\s*"drop"\s*:\s*\[\s*"ALL"\s*\]\s*\}$`)

// UnmarshalJSONFrom reads any value, and allocates nothing either.
func (f *dropsAll) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	*f = dropsAll(onlyDrops.Match(value))
	return err
}

// Seccomp is a SeccompProfile.
type Seccomp struct {
	Type             string `json:"type"`
	LocalhostProfile string `json:"localhostProfile,omitzero"`
}

// Resources are the requests and limits of a container, or of a whole pod.
type Resources struct {
	Requests corev1.ResourceList `json:"requests,omitempty"`
	Limits   corev1.ResourceList `json:"limits,omitempty"`
}

// Container is a container or an init container.
type Container struct {
	Name            string           `json:"name"`
	Image           string           `json:"image"`
	Command         []string         `json:"command"`
	Args            []string         `json:"args"`
	WorkingDir      string           `json:"workingDir"`
	RestartPolicy   string           `json:"restartPolicy"`
	Env             []EnvVar         `json:"env"`
	EnvFrom         []jsontext.Value `json:"envFrom"`
	Ports           []Port           `json:"ports"`
	LivenessProbe   Probe            `json:"livenessProbe"`
	ReadinessProbe  Probe            `json:"readinessProbe"`
	StartupProbe    Probe            `json:"startupProbe"`
	VolumeMounts    []VolumeMount    `json:"volumeMounts"`
	SecurityContext SecurityContext  `json:"securityContext"`
	Resources       Resources        `json:"resources"`
}

// EnvVar is an environment variable. By value or by reference, it is set.
type EnvVar struct {
	Name      string     `json:"name"`
	Value     string     `json:"value,omitzero"`
	ValueFrom *ValueFrom `json:"valueFrom,omitzero"`
}

// ValueFrom is the one reference that is written: a field of the pod.
type ValueFrom struct {
	FieldRef FieldRef `json:"fieldRef,omitzero"`
}

// FieldRef names a field of the pod, as in metadata.name.
type FieldRef struct {
	FieldPath string `json:"fieldPath"`
}

// Port is a declared port.
type Port struct {
	Name          string `json:"name"`
	ContainerPort int32  `json:"containerPort"`
}

// Probe is where the kubelet asks a container how it is.
type Probe struct {
	Exec      Exec      `json:"exec"`
	HTTPGet   ProbePort `json:"httpGet"`
	TCPSocket ProbePort `json:"tcpSocket"`
	GRPC      ProbePort `json:"grpc"`
}

// Exec is a command that the kubelet runs in the container.
type Exec struct {
	Command []string `json:"command"`
}

// ProbePort is the number or the name of a port.
type ProbePort struct {
	Port jsontext.Value `json:"port"`
}

// VolumeMount is a place where a container sees a volume.
type VolumeMount struct {
	Name        string `json:"name"`
	MountPath   string `json:"mountPath"`
	SubPath     string `json:"subPath,omitzero"`
	SubPathExpr string `json:"subPathExpr,omitzero"`
	ReadOnly    bool   `json:"readOnly,omitzero"`
}

// part reports whether m shows a part of the volume, which the kubelet resolves
// once, when the container starts.
func (m *VolumeMount) part() bool { return m.SubPath != "" || m.SubPathExpr != "" }

// Volume is a volume's name, and all its other members as they were written: a
// source that this build has never heard of moves as well as any other.
type Volume struct {
	Name   string         `json:"name"`
	Source jsontext.Value `json:",embed"`
}

// kind is the name of the volume's source, such as configMap. Beside one that
// matters here, members that this build does not know do not count.
func (v *Volume) kind() string {
	var members map[string]jsontext.Value
	if json.Unmarshal(v.Source, &members) != nil || len(members) == 0 {
		return "no source"
	}
	for _, kind := range []string{"configMap", "secret", "projected", "emptyDir"} {
		if source, set := members[kind]; set && source.Kind() != 'n' {
			return kind
		}
	}
	return slices.Min(slices.Collect(maps.Keys(members)))
}

// renamed is the volume under another name, as JSON.
func (v *Volume) renamed(name string) (jsontext.Value, error) {
	return json.Marshal(Volume{Name: name, Source: v.Source})
}

// volume is the index of the volume of a name, or -1.
func (p *Pod) volume(name string) int {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return i
		}
	}
	return -1
}

// all are the init containers and the containers.
func (p *Pod) all(yield func(*Container) bool) {
	for i := range p.Spec.InitContainers {
		if !yield(&p.Spec.InitContainers[i]) {
			return
		}
	}
	p.lasting(yield)
}

// running are the containers that live as long as the pod: all but the init
// containers that end.
func (p *Pod) running(yield func(*Container) bool) {
	for i := range p.Spec.InitContainers {
		if c := &p.Spec.InitContainers[i]; c.sidecar() && !yield(c) {
			return
		}
	}
	p.lasting(yield)
}

func (p *Pod) lasting(yield func(*Container) bool) {
	for i := range p.Spec.Containers {
		if !yield(&p.Spec.Containers[i]) {
			return
		}
	}
}

// called is the container in a sentence. Names come here before they are validated.
func (c *Container) called() string { return "container " + shorten(c.Name, 63) }

// sidecar tells, of an init container, whether it is a native sidecar.
func (c *Container) sidecar() bool {
	return c.RestartPolicy == string(corev1.ContainerRestartPolicyAlways)
}

// arguments are what the container's program is given, as far as the pod says.
func (c *Container) arguments() []string {
	if len(c.Command) > 1 {
		return append(c.Command[1:len(c.Command):len(c.Command)], c.Args...)
	}
	return c.Args
}

// flag returns the values that the command line gives to a flag.
func (c *Container) flag(name string) []string {
	_, args := c.commandLine()
	return flagValues(args, name)
}

// flagValues returns the values that arguments give to a flag, in the forms
// --name=value and --name value, with one dash or two. A flag that takes no
// value shows up with a meaningless one.
func flagValues(args []string, name string) []string {
	var values []string
	for i, arg := range args {
		dashed, isFlag := strings.CutPrefix(arg, "-")
		key, value, joined := strings.Cut(strings.TrimPrefix(dashed, "-"), "=")
		if !isFlag || key != name {
			continue
		}
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		values = append(values, value)
	}
	return values
}

func (c *Container) hasFlag(name string) bool { return len(c.flag(name)) > 0 }

// setsEnv reports whether the container's own list names the variable. What
// envFrom brings cannot be seen.
func (c *Container) setsEnv(name string) bool {
	for i := range c.Env {
		if c.Env[i].Name == name {
			return true
		}
	}
	return false
}

// mountOf is the mount under which the container sees a file, and the file's
// path in it: the mount with the longest path that covers it; nil: none.
func (c *Container) mountOf(file string) (mount *VolumeMount, rel string) {
	longest := -1
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		dir := path.Clean(m.MountPath)
		if inside, covered := below(dir, file); covered && len(dir) > longest {
			mount, rel, longest = m, inside, len(dir)
		}
	}
	return mount, rel
}

// below is the path of file relative to dir, "." for dir itself; both are clean.
func below(dir, file string) (rel string, ok bool) {
	if dir == file {
		return ".", true
	}
	if dir == "/" {
		return strings.CutPrefix(file, dir)
	}
	rest, within := strings.CutPrefix(file, dir)
	rel, slash := strings.CutPrefix(rest, "/")
	return rel, within && slash
}

// imageName is the last part of an image's path, without tag and digest.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	name := image[strings.LastIndexByte(image, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}
