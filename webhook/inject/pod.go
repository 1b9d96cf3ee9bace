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

// Pod is the part of a v1.Pod that injection needs. Decode it with
// github.com/go-json-experiment/json; other members are skipped. It must not be changed.
type Pod struct {
	Metadata Metadata
	Spec     Spec

	// prometheus is the container that an earlier injection has selected; empty if there is none.
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

// Metadata is the part of ObjectMeta that injection needs. At admission the pod of a controller has
// a GenerateName but no Name.
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

// Owner is the part of OwnerReference that injection needs.
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

// Controller returns the owner that creates the pod again when it is deleted; zero if there is
// none.
func (m *Metadata) Controller() Owner {
	for _, o := range m.Owners {
		if o.Controller {
			return o
		}
	}
	return Owner{}
}

// Spec is the part of PodSpec that injection needs.
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

// SecurityContext is the part of PodSecurityContext and of a container's SecurityContext that
// injection needs.
type SecurityContext struct {
	// FSGroup and SupplementalGroups exist only for pods.
	FSGroup            *int64
	SupplementalGroups []int64

	RunAsUser      *int64
	RunAsGroup     *int64
	SeccompProfile Seccomp
	RunAsNonRoot   bool

	// The following fields exist only for containers.
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

// setFalse is true if the member is false and not absent.
type setFalse bool

// UnmarshalJSONFrom reads any value. It allocates nothing, because it runs for every pod.
func (f *setFalse) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	value, err := d.ReadValue()
	*f = value.Kind() == 'f'
	return err
}

// dropsAll is true if the capabilities drop ALL and add none. Some platforms, such as OpenShift's
// SCCs, also drop more of them by name.
type dropsAll bool

var onlyDrops = regexp.MustCompile(`^\{\s*("add"\s*:\s*\[\s*\]\s*,\s*)?"drop"\s*:\s*\[([^\]]*,)?\s*"ALL"\s*(,[^\]]*)?\]\s*\}$`)

// UnmarshalJSONFrom reads any value. It allocates nothing either.
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

// valid reports whether no request is above its limit. The API server refuses such resources.
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

// EnvVar is an environment variable, with a value or a reference.
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

// ValueFrom is a reference to a field of the pod, the only kind that injection writes.
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

// FieldRef names a field of the pod, for example metadata.name.
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

// Probe is how the kubelet checks a container.
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

// runs reports whether the probe is the command and nothing else. The API server refuses a probe
// with two actions.
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

// ProbePort is the number or the name of a port, in JSON.
type ProbePort struct {
	Port string
}

func (p *ProbePort) member(r *jsonread.Reader, name []byte) error {
	if string(name) != "port" || r.PeekKind() == 'n' {
		return r.SkipValue()
	}
	return r.Text(&p.Port)
}

// VolumeMount is a mount of a volume in a container.
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

// part reports whether m shows only a part of the volume. The kubelet resolves such a mount only
// once, when the container starts.
func (m *VolumeMount) part() bool { return m.SubPath != "" || m.SubPathExpr != "" }

// Volume is a volume's name, with all other members unchanged. So a volume with a source that this
// build does not know can be moved too.
type Volume struct {
	Name string
	// Source is a JSON object; empty if the volume has no other members.
	Source string

	// sourceKind is the result of kind, if Source is not empty.
	sourceKind string
	// served is true if sourceKind is one of servedKinds and the source is not null.
	served bool
}

// servedKinds are the sources that injection knows.
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

// kind returns the name of the volume's source, such as configMap. A source that injection knows
// takes precedence over unknown members.
func (v *Volume) kind() string {
	if v.Source == "" {
		return "no source"
	}
	return v.sourceKind
}

// renamed returns the volume under another name, as JSON.
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

// volume returns the index of the volume with a name, or -1.
func (p *Pod) volume(name string) int {
	for i := range p.Spec.Volumes {
		if p.Spec.Volumes[i].Name == name {
			return i
		}
	}
	return -1
}

// all iterates over the init containers and the containers.
func (p *Pod) all(yield func(*Container) bool) {
	for i := range p.Spec.InitContainers {
		if !yield(&p.Spec.InitContainers[i]) {
			return
		}
	}
	p.lasting(yield)
}

// running iterates over the containers that run as long as the pod: all except ordinary init
// containers.
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

// called returns how a message names the container. The name is not validated yet, so it is
// shortened.
func (c *Container) called() string { return "container " + shorten(c.Name, 63) }

// sidecar reports whether an init container is a native sidecar.
func (c *Container) sidecar() bool {
	return c.RestartPolicy == string(corev1.ContainerRestartPolicyAlways)
}

// arguments returns the program's arguments that the pod shows.
func (c *Container) arguments() []string {
	if len(c.Command) > 1 {
		return append(c.Command[1:len(c.Command):len(c.Command)], c.Args...)
	}
	return c.Args
}

// flag returns the values of the named flags on the command line, flag by flag.
func (c *Container) flag(names ...string) (values []string) {
	_, args := c.commandLine()
	for _, name := range names {
		for value := range valuesOf(args, name) {
			values = append(values, value)
		}
	}
	return values
}

// anyFlag reports whether f is true for a value of one of the named flags. Unlike flag, it creates
// no list.
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

// firstFlag returns the first value of a flag on the command line.
func (c *Container) firstFlag(name string) (value string, set bool) {
	_, args := c.commandLine()
	for value := range valuesOf(args, name) {
		return value, true
	}
	return "", false
}

// valuesOf iterates over the values of a flag in the arguments, in the forms --name=value and
// --name value, with one or two dashes. A flag without a value yields the next argument, which has
// no meaning.
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

// hasFlag reports whether the arguments contain one of the flags.
func hasFlag(args []string, names ...string) bool {
	return slices.ContainsFunc(args, func(arg string) bool {
		key, _, _, is := flagOf(arg)
		return is && slices.Contains(names, key)
	})
}

// flagOf splits --name=value or --name.
func flagOf(arg string) (name, value string, joined, is bool) {
	dashed, is := strings.CutPrefix(arg, "-")
	name, value, joined = strings.Cut(strings.TrimPrefix(dashed, "-"), "=")
	return name, value, joined, is
}

// setsEnv reports whether the container's env names the variable. The variables of envFrom are not
// visible.
func (c *Container) setsEnv(name string) bool {
	for i := range c.Env {
		if c.Env[i].Name == name {
			return true
		}
	}
	return false
}

// mountOf returns the mount with which the container sees a file, and the file's path in it. It is
// the mount with the longest path that contains the file; nil if there is none.
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

// cleanPath returns the same as [path.Clean]. It is faster for clean paths, which are nearly all of
// the hundreds of paths in a pod.
func cleanPath(file string) string {
	if len(file) > 1 && file[0] == '/' && file[len(file)-1] != '/' && !strings.Contains(file, "//") && !strings.Contains(file, "/.") {
		return file
	}
	return path.Clean(file)
}

// below returns the path of file relative to dir, or "." for dir itself. Both must be clean.
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

// imageName returns the last part of an image's path, without tag and digest.
func imageName(image string) string {
	image, _, _ = strings.Cut(image, "@")
	name := image[strings.LastIndexByte(image, '/')+1:]
	name, _, _ = strings.Cut(name, ":")
	return name
}
