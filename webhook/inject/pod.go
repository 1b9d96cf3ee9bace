package inject

import (
	"iter"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

// Pod is what injection needs to see of a v1.Pod. Decode it with
// github.com/go-json-experiment/json; other members are skipped. It is for reading
// only.
type Pod struct {
	Metadata Metadata
	Spec     Spec

	// prometheus names the container that an injection has found before; empty: none.
	prometheus string
}

// UnmarshalJSONFrom decodes a v1.Pod.
func (p *Pod) UnmarshalJSONFrom(d *jsontext.Decoder) error { return p.ReadJSON(jsonread.From(d)) }

// ReadJSON decodes a v1.Pod.
func (p *Pod) ReadJSON(r *jsonread.Reader) error { return jsonread.Object(r, p, (*Pod).member) }

func (p *Pod) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "metadata":
		return jsonread.Object(r, &p.Metadata, (*Metadata).member)
	case "spec":
		return jsonread.Object(r, &p.Spec, (*Spec).member)
	}
	return r.SkipValue()
}

// Metadata is the part of ObjectMeta that matters here. Pods of a controller
// have a GenerateName and no Name at admission.
type Metadata struct {
	Name         string
	GenerateName string
	Namespace    string
	Labels       map[string]string
	Annotations  map[string]string
	Owners       []Owner
}

func (m *Metadata) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "name":
		return r.String(&m.Name)
	case "generateName":
		return r.String(&m.GenerateName)
	case "namespace":
		return r.String(&m.Namespace)
	case "labels":
		return r.StringMap(&m.Labels)
	case "annotations":
		return r.StringMap(&m.Annotations)
	case "ownerReferences":
		return jsonread.Objects(r, &m.Owners, 1, (*Owner).member)
	}
	return r.SkipValue()
}

// Owner is the part of OwnerReference that matters here.
type Owner struct {
	Kind       string
	Name       string
	Controller bool
}

func (o *Owner) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "kind":
		return r.String(&o.Kind)
	case "name":
		return r.String(&o.Name)
	case "controller":
		o.Controller = false // null is false
		return r.Bool(&o.Controller)
	}
	return r.SkipValue()
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
	ServiceAccountName    string
	HostNetwork           bool
	HostPID               bool
	ShareProcessNamespace bool
	OS                    OS
	NodeSelector          map[string]string
	PriorityClassName     string
	ActiveDeadlineSeconds *int64
	SecurityContext       SecurityContext
	Resources             Resources
	ImagePullSecrets      []policy.SecretRef
	InitContainers        []Container
	Containers            []Container
	Volumes               []Volume
}

func secretMember(s *policy.SecretRef, r *jsonread.Reader, name []byte) error {
	if string(name) == "name" {
		return r.String(&s.Name)
	}
	return r.SkipValue()
}

func (s *Spec) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "serviceAccountName":
		return r.String(&s.ServiceAccountName)
	case "hostNetwork":
		return r.Bool(&s.HostNetwork)
	case "hostPID":
		return r.Bool(&s.HostPID)
	case "shareProcessNamespace":
		s.ShareProcessNamespace = false // null is false
		return r.Bool(&s.ShareProcessNamespace)
	case "os":
		return jsonread.Optional(r, &s.OS, (*OS).member)
	case "nodeSelector":
		return r.StringMap(&s.NodeSelector)
	case "priorityClassName":
		return r.String(&s.PriorityClassName)
	case "activeDeadlineSeconds":
		return r.IntegerPointer(&s.ActiveDeadlineSeconds)
	case "securityContext":
		return jsonread.Optional(r, &s.SecurityContext, (*SecurityContext).member)
	case "resources":
		return jsonread.Optional(r, &s.Resources, (*Resources).member)
	case "imagePullSecrets":
		return jsonread.Objects(r, &s.ImagePullSecrets, 2, secretMember)
	case "initContainers":
		return jsonread.Objects(r, &s.InitContainers, 2, (*Container).member)
	case "containers":
		return jsonread.Objects(r, &s.Containers, 4, (*Container).member)
	case "volumes":
		return jsonread.Objects(r, &s.Volumes, 8, (*Volume).member)
	}
	return r.SkipValue()
}

// OS is PodOS.
type OS struct {
	Name string
}

func (o *OS) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "name" {
		return r.String(&o.Name)
	}
	return r.SkipValue()
}

// SecurityContext is what PodSecurityContext and a container's SecurityContext
// share and injection needs.
type SecurityContext struct {
	// FSGroup and SupplementalGroups are the pod's alone.
	FSGroup            *int64
	SupplementalGroups []int64

	RunAsUser      *int64
	RunAsGroup     *int64
	SeccompProfile Seccomp
	RunAsNonRoot   bool

	// The others are a container's alone.
	Privileged               bool
	AllowPrivilegeEscalation setFalse
	ReadOnlyRootFilesystem   bool
	Capabilities             dropsAll
	WindowsOptions           jsontext.Value
}

func (c *SecurityContext) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "fsGroup":
		return r.IntegerPointer(&c.FSGroup)
	case "supplementalGroups":
		return r.Integers(&c.SupplementalGroups)
	case "runAsUser":
		return r.IntegerPointer(&c.RunAsUser)
	case "runAsGroup":
		return r.IntegerPointer(&c.RunAsGroup)
	case "seccompProfile":
		return jsonread.Optional(r, &c.SeccompProfile, (*Seccomp).member)
	case "runAsNonRoot":
		c.RunAsNonRoot = false // null is false
		return r.Bool(&c.RunAsNonRoot)
	case "privileged":
		c.Privileged = false // null is false
		return r.Bool(&c.Privileged)
	case "allowPrivilegeEscalation":
		return c.AllowPrivilegeEscalation.UnmarshalJSONFrom(r.Decoder)
	case "readOnlyRootFilesystem":
		c.ReadOnlyRootFilesystem = false // null is false
		return r.Bool(&c.ReadOnlyRootFilesystem)
	case "capabilities":
		return c.Capabilities.UnmarshalJSONFrom(r.Decoder)
	case "windowsOptions":
		return r.Value(&c.WindowsOptions)
	}
	return r.SkipValue()
}

// setFalse is true for a member that is false, and not absent.
type setFalse bool

// UnmarshalJSONFrom reads any value. It allocates nothing: every pod comes here.
func (f *setFalse) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	*f = value.Kind() == 'f'
	return err
}

// dropsAll is true for capabilities that drop all, and add none. Some platforms drop more of
// them by name, such as OpenShift's SCCs.
type dropsAll bool

var onlyDrops = regexp.MustCompile(`^\{\s*("add"\s*:\s*\[\s*\]\s*,\s*)?"drop"\s*:\s*\[([^\]]*,)?\s*"ALL"\s*(,[^\]]*)?\]\s*\}$`)

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

func (s *Seccomp) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "type":
		return r.String(&s.Type)
	case "localhostProfile":
		s.LocalhostProfile = "" // null is none
		return r.String(&s.LocalhostProfile)
	}
	return r.SkipValue()
}

func (s *Seccomp) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"type":`...), s.Type)
	if s.LocalhostProfile != "" {
		b = appendString(append(b, `,"localhostProfile":`...), s.LocalhostProfile)
	}
	return append(b, '}')
}

// Resources are the requests and limits of a container, or of a whole pod.
type Resources struct {
	Requests corev1.ResourceList `json:"requests,omitempty"`
	Limits   corev1.ResourceList `json:"limits,omitempty"`
}

func readQuantity(r *jsonread.Reader) (q resource.Quantity, err error) {
	kind := r.PeekKind()
	value, err := r.ReadValue()
	if err != nil {
		return q, err
	}
	if err := q.UnmarshalJSON(value); err != nil {
		return q, r.Wrong(kind, reflect.TypeFor[resource.Quantity](), err)
	}
	return q, nil
}

func quantitiesFrom(r *jsonread.Reader, to *corev1.ResourceList) error {
	return jsonread.Map(r, (*map[corev1.ResourceName]resource.Quantity)(to), readQuantity)
}

func (q *Resources) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "requests":
		return quantitiesFrom(r, &q.Requests)
	case "limits":
		return quantitiesFrom(r, &q.Limits)
	}
	return r.SkipValue()
}

func (q *Resources) appendJSON(b []byte) []byte {
	b = append(b, '{')
	if len(q.Requests) > 0 {
		b = appendQuantities(append(b, `"requests":`...), q.Requests)
	}
	if len(q.Limits) > 0 {
		if len(q.Requests) > 0 {
			b = append(b, ',')
		}
		b = appendQuantities(append(b, `"limits":`...), q.Limits)
	}
	return append(b, '}')
}

func appendQuantities(b []byte, list corev1.ResourceList) []byte {
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(list)) {
		if i > 0 {
			b = append(b, ',')
		}
		quantity := list[name]
		b = appendString(append(appendString(b, string(name)), ':'), quantity.String())
	}
	return append(b, '}')
}

// valid reports whether no request is above its limit, which the API server refuses.
func (q *Resources) valid() bool {
	for name, limit := range q.Limits {
		if request, is := q.Requests[name]; is && request.Cmp(limit) > 0 {
			return false
		}
	}
	return true
}

// Container is a container or an init container.
type Container struct {
	Name            string
	Image           string
	Command         []string
	Args            []string
	WorkingDir      string
	RestartPolicy   string
	Env             []EnvVar
	EnvFrom         []jsontext.Value
	Ports           []Port
	LivenessProbe   Probe
	ReadinessProbe  Probe
	StartupProbe    Probe
	VolumeMounts    []VolumeMount
	SecurityContext SecurityContext
	Resources       Resources
}

func (c *Container) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "name":
		return r.String(&c.Name)
	case "image":
		return r.String(&c.Image)
	case "command":
		return r.Strings(&c.Command, 4)
	case "args":
		return r.Strings(&c.Args, 16)
	case "workingDir":
		return r.String(&c.WorkingDir)
	case "restartPolicy":
		c.RestartPolicy = "" // null is none
		return r.String(&c.RestartPolicy)
	case "env":
		return jsonread.Objects(r, &c.Env, 4, (*EnvVar).member)
	case "envFrom":
		return r.Values(&c.EnvFrom)
	case "ports":
		return jsonread.Objects(r, &c.Ports, 2, (*Port).member)
	case "livenessProbe":
		return jsonread.Optional(r, &c.LivenessProbe, (*Probe).member)
	case "readinessProbe":
		return jsonread.Optional(r, &c.ReadinessProbe, (*Probe).member)
	case "startupProbe":
		return jsonread.Optional(r, &c.StartupProbe, (*Probe).member)
	case "volumeMounts":
		return jsonread.Objects(r, &c.VolumeMounts, 8, (*VolumeMount).member)
	case "securityContext":
		return jsonread.Optional(r, &c.SecurityContext, (*SecurityContext).member)
	case "resources":
		return jsonread.Object(r, &c.Resources, (*Resources).member)
	}
	return r.SkipValue()
}

// EnvVar is an environment variable. By value or by reference, it is set.
type EnvVar struct {
	Name      string     `json:"name"`
	Value     string     `json:"value,omitzero"`
	ValueFrom *ValueFrom `json:"valueFrom,omitzero"`
}

func (v *EnvVar) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "name":
		return r.String(&v.Name)
	case "value":
		return r.String(&v.Value)
	case "valueFrom":
		return jsonread.Pointer(r, &v.ValueFrom, (*ValueFrom).member)
	}
	return r.SkipValue()
}

func (v *EnvVar) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"name":`...), v.Name)
	if v.Value != "" {
		b = appendString(append(b, `,"value":`...), v.Value)
	}
	if v.ValueFrom != nil {
		b = v.ValueFrom.appendJSON(append(b, `,"valueFrom":`...))
	}
	return append(b, '}')
}

// ValueFrom is the one reference that is written: a field of the pod.
type ValueFrom struct {
	FieldRef FieldRef `json:"fieldRef,omitzero"`
}

func (v *ValueFrom) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "fieldRef" {
		return jsonread.Optional(r, &v.FieldRef, (*FieldRef).member)
	}
	return r.SkipValue()
}

func (v *ValueFrom) appendJSON(b []byte) []byte {
	if v.FieldRef == (FieldRef{}) {
		return append(b, "{}"...)
	}
	b = appendString(append(b, `{"fieldRef":{"fieldPath":`...), v.FieldRef.FieldPath)
	return append(b, "}}"...)
}

// FieldRef names a field of the pod, as in metadata.name.
type FieldRef struct {
	FieldPath string `json:"fieldPath"`
}

func (f *FieldRef) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "fieldPath" {
		return r.String(&f.FieldPath)
	}
	return r.SkipValue()
}

// Port is a declared port.
type Port struct {
	Name          string `json:"name"`
	ContainerPort int32  `json:"containerPort"`
}

func (p *Port) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "name":
		return r.String(&p.Name)
	case "containerPort":
		return r.Integer32(&p.ContainerPort)
	}
	return r.SkipValue()
}

func (p *Port) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"name":`...), p.Name)
	b = strconv.AppendInt(append(b, `,"containerPort":`...), int64(p.ContainerPort), 10)
	return append(b, '}')
}

// Probe is where the kubelet asks a container how it is.
type Probe struct {
	Exec      Exec
	HTTPGet   ProbePort
	TCPSocket ProbePort
	GRPC      ProbePort
}

func (p *Probe) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "exec":
		return jsonread.Optional(r, &p.Exec, (*Exec).member)
	case "httpGet":
		return jsonread.Optional(r, &p.HTTPGet, (*ProbePort).member)
	case "tcpSocket":
		return jsonread.Optional(r, &p.TCPSocket, (*ProbePort).member)
	case "grpc":
		return jsonread.Optional(r, &p.GRPC, (*ProbePort).member)
	}
	return r.SkipValue()
}

// runs reports whether the probe is the command, and nothing else: the API server refuses
// a probe of two kinds.
func (p *Probe) runs(command []string) bool {
	return slices.Equal(p.Exec.Command, command) && p.HTTPGet.Port == "" && p.TCPSocket.Port == "" && p.GRPC.Port == ""
}

// Exec is a command that the kubelet runs in the container.
type Exec struct {
	Command []string `json:"command"`
}

func (e *Exec) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "command" {
		return r.Strings(&e.Command, 4)
	}
	return r.SkipValue()
}

// ProbePort is the number or the name of a port, as JSON.
type ProbePort struct {
	Port string
}

func (p *ProbePort) member(r *jsonread.Reader, name []byte) error {
	if string(name) != "port" || r.PeekKind() == 'n' {
		return r.SkipValue()
	}
	return r.Text(&p.Port)
}

// VolumeMount is a place where a container sees a volume.
type VolumeMount struct {
	Name        string `json:"name"`
	MountPath   string `json:"mountPath"`
	SubPath     string `json:"subPath,omitzero"`
	SubPathExpr string `json:"subPathExpr,omitzero"`
	ReadOnly    bool   `json:"readOnly,omitzero"`
}

func (m *VolumeMount) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "name":
		return r.String(&m.Name)
	case "mountPath":
		return r.String(&m.MountPath)
	case "subPath":
		return r.String(&m.SubPath)
	case "subPathExpr":
		return r.String(&m.SubPathExpr)
	case "readOnly":
		return r.Bool(&m.ReadOnly)
	}
	return r.SkipValue()
}

func (m *VolumeMount) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"name":`...), m.Name)
	b = appendString(append(b, `,"mountPath":`...), m.MountPath)
	if m.SubPath != "" {
		b = appendString(append(b, `,"subPath":`...), m.SubPath)
	}
	if m.SubPathExpr != "" {
		b = appendString(append(b, `,"subPathExpr":`...), m.SubPathExpr)
	}
	if m.ReadOnly {
		b = append(b, `,"readOnly":true`...)
	}
	return append(b, '}')
}

// part reports whether m shows a part of the volume, which the kubelet resolves
// once, when the container starts.
func (m *VolumeMount) part() bool { return m.SubPath != "" || m.SubPathExpr != "" }

// Volume is a volume's name, and all its other members as they were written: a
// source that this build has never heard of moves as well as any other.
type Volume struct {
	Name string
	// Source is a JSON object; empty: the volume has no other members.
	Source string

	// sourceKind is what kind returns.
	sourceKind string
	// served: sourceKind is one of servedKinds, and not null.
	served bool
}

// servedKinds are the sources that matter here.
var servedKinds = []string{"configMap", "secret", "projected", "emptyDir", "downwardAPI"}

func (v *Volume) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "name" {
		return r.String(&v.Name)
	}
	known := slices.IndexFunc(servedKinds, func(kind string) bool { return kind == string(name) })
	kind := ""
	if known >= 0 {
		kind = servedKinds[known]
	} else {
		kind = r.Keep(name)
	}
	served := known >= 0 && r.PeekKind() != 'n'
	better := served || kind < v.sourceKind
	if v.served {
		better = served && known < slices.Index(servedKinds, v.sourceKind)
	}
	if better || v.sourceKind == "" {
		v.sourceKind, v.served = kind, served
	}
	return r.Append(&v.Source, kind)
}

// kind is the name of the volume's source, such as configMap. Beside one that
// matters here, members that this build does not know do not count.
func (v *Volume) kind() string {
	if v.Source == "" {
		return "no source"
	}
	return v.sourceKind
}

// renamed is the volume under another name, as JSON.
func (v *Volume) renamed(name string) (jsontext.Value, error) {
	text, err := jsontext.AppendQuote([]byte(`{"name":`), name)
	if err != nil {
		return nil, err
	}
	if v.Source == "" {
		return append(text, '}'), nil
	}
	return append(append(text, ','), v.Source[1:]...), nil
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

// flag returns the values that the command line gives to a flag, or to one flag and then
// to another.
func (c *Container) flag(names ...string) (values []string) {
	_, args := c.commandLine()
	for _, name := range names {
		for value := range valuesOf(args, name) {
			values = append(values, value)
		}
	}
	return values
}

// anyFlag reports whether f is true for a value that the command line gives to one of the
// flags. Unlike flag, it makes no list.
func (c *Container) anyFlag(f func(value string) bool, names ...string) bool {
	_, args := c.commandLine()
	for _, name := range names {
		for value := range valuesOf(args, name) {
			if f(value) {
				return true
			}
		}
	}
	return false
}

// firstFlag returns the first value that the command line gives to a flag.
func (c *Container) firstFlag(name string) (value string, set bool) {
	_, args := c.commandLine()
	for value := range valuesOf(args, name) {
		return value, true
	}
	return "", false
}

// valuesOf are the values that arguments give to a flag, in the forms
// --name=value and --name value, with one dash or two. A flag that takes no
// value shows up with a meaningless one.
func valuesOf(args []string, name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i, arg := range args {
			key, value, joined, is := flagOf(arg)
			if !is || key != name {
				continue
			}
			if !joined && i+1 < len(args) {
				value = args[i+1]
			}
			if !yield(value) {
				return
			}
		}
	}
}

func (c *Container) hasFlag(names ...string) bool {
	_, args := c.commandLine()
	return hasFlag(args, names...)
}

// hasFlag reports whether the arguments name one of the flags.
func hasFlag(args []string, names ...string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		key, _, _, is := flagOf(arg)
		return is && slices.Contains(names, key)
	})
}

// flagOf splits --name=value, or --name.
func flagOf(arg string) (name, value string, joined, is bool) {
	dashed, is := strings.CutPrefix(arg, "-")
	name, value, joined = strings.Cut(strings.TrimPrefix(dashed, "-"), "=")
	return name, value, joined, is
}

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
		dir := cleanPath(m.MountPath)
		if inside, covered := below(dir, file); covered && len(dir) > longest {
			mount, rel, longest = m, inside, len(dir)
		}
	}
	return mount, rel
}

// cleanPath is [path.Clean]. Nearly all paths are clean, and it is asked for hundreds of
// them in a pod.
func cleanPath(file string) string {
	if len(file) > 1 && file[0] == '/' && file[len(file)-1] != '/' && !strings.Contains(file, "//") && !strings.Contains(file, "/.") {
		return file
	}
	return path.Clean(file)
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
