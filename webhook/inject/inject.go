package inject

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	stdjson "encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// AnnotationInjected marks an injected pod. Its value is an [Injected] in JSON.
const AnnotationInjected = policy.AnnotationInjected

// Injected describes what a pod was given, for users and for the auditor.
type Injected struct {
	// Version is the version of the sidecar config's format.
	Version int `json:"version"`
	// Mode is empty for [policy.ModePrometheus], as in the marks of earlier versions.
	Mode policy.Mode `json:"mode,omitempty"`
	// Containers are the containers that the pod names, with the other modes.
	Containers []string `json:"containers,omitempty"`
	// Destinations are the names of the destinations, in the policy's order.
	Destinations []string `json:"destinations"`
	// Delivery is sigv4 or relay for each destination.
	Delivery map[string]policy.Delivery `json:"delivery,omitempty"`
	// Why is the reason why a destination does not have sigv4; empty if all have it.
	Why string `json:"why,omitempty"`
	// Policy is the beginning of the SHA-256 of the sidecar config, 12 hex digits. It changes when
	// the policy changes for this pod.
	Policy string `json:"policy"`
	// Reload is how a changed configuration reaches Prometheus.
	Reload Reload `json:"reload,omitempty"`
	// MetricsPort is the port of the sidecar's metrics; 0 if it serves none.
	MetricsPort int32 `json:"metricsPort,omitempty"`
}

// String describes how the pod's samples are delivered, and why. For the mark of an earlier version
// it describes only the reload.
func (m Injected) String() string {
	in := " in " + strings.Join(m.Containers, ", ")
	switch m.Mode {
	case policy.ModeIdentity:
		return "mode identity" + in + ": the program gets its sessions from STS itself"
	case policy.ModeRelay:
		return "mode relay" + in + ": the program writes to the sidecar, which signs and forwards"
	}
	if len(m.Delivery) == 0 {
		return m.Reload.String()
	}
	var each []string
	alike := true
	for _, name := range m.Destinations {
		each = append(each, name+" "+string(m.Delivery[name]))
		alike = alike && m.Delivery[name] == m.Delivery[m.Destinations[0]]
	}
	text := "delivery " + strings.Join(each, ", ")
	if alike {
		text = "delivery " + string(m.Delivery[m.Destinations[0]])
	}
	if m.Why != "" {
		return text + ": " + m.Why
	}
	return text + ": " + m.Reload.String()
}

// Marked returns the [AnnotationInjected] that the operations set.
func Marked(operations []jsonpatch.Operation) (m Injected, ok bool) {
	for _, o := range operations {
		value, _ := o.Value.(stdjson.RawMessage)
		var text string
		var err error
		switch o.Path {
		case "/metadata/annotations":
			annotations := map[string]string{}
			err = json.Unmarshal(value, &annotations)
			text = annotations[AnnotationInjected]
		case annotationPath:
			err = json.Unmarshal(value, &text)
		}
		if err == nil && text != "" {
			return m, json.Unmarshal([]byte(text), &m) == nil
		}
	}
	return m, false
}

var annotationPath = pointer("metadata", "annotations", AnnotationInjected)

// Options are the inputs of an injection in addition to the pod and the decision.
type Options struct {
	Policy *policy.Policy
	// Image is the sidecar image, used if the policy names none.
	Image string
	// Limits are the limits of the pod's namespace.
	Limits Limits
	// ServiceAccountAnnotations are the annotations of the pod's service account. They can name an
	// AWS identity.
	ServiceAccountAnnotations map[string]string
	// Cache stores what is the same for many pods; nil for no cache.
	Cache *Cache
}

// Inject returns the operations that make the pod write to the destinations of d, a decision of
// [policy.Policy.Decide] with Inject set. If it cannot, it returns no operations and a decision to
// skip with a reason of this package. For an injected pod it returns the reason [AlreadyInjected],
// so it can be called any number of times. If another webhook has changed the injected pod, the
// operations repair the injection. If that is impossible, they undo it, with a decision to skip.
// See [reinvoke].
func Inject(pod *Pod, d policy.Decision, o Options) ([]jsonpatch.Operation, policy.Decision) {
	if d.Mode == policy.ModeIdentity || d.Mode == policy.ModeRelay {
		return injectNamed(pod, d, o)
	}
	if m := ModeOf(pod); m != "" && m != policy.ModePrometheus {
		return nil, *otherMode(pod, d.Mode)
	}
	if existing := checkExisting(pod); existing != nil {
		return reinvoke(pod, d, o, existing)
	}
	operations, notice, refused := inject(pod, d.Entitlement, o)
	if refused != nil {
		return nil, *refused
	}
	d.Warning = cmp.Or(notice, d.Warning)
	return operations, d
}

// inject returns the operations. notice is a warning if the pod gets something else than was
// requested.
func inject(pod *Pod, e policy.Entitlement, o Options) ([]jsonpatch.Operation, string, *policy.Decision) {
	in, notice, refused := plan(pod, e, o)
	if refused != nil {
		return nil, "", refused
	}
	operations, err := in.operations(pod, o)
	if err != nil {
		return nil, "", refuse(MalformedPod, "the patch cannot be encoded: %v", err)
	}
	return operations, notice, nil
}

// injection describes the changes to a pod.
type injection struct {
	mark   string
	common *shared
	// prometheus is the index of the container, and config is the index of the configuration's
	// volume.
	prometheus, config int
	// moved is the configuration's volume under its new name.
	moved       jsontext.Value
	environment environment
	sidecar     container
}

// plan returns the injection. notice is a warning if the pod gets something else than was
// requested.
func plan(pod *Pod, e policy.Entitlement, o Options) (in injection, notice string, refused *policy.Decision) {
	if refused := checkSupported(pod); refused != nil {
		return in, "", refused
	}
	index, refused := selectContainer(pod)
	if refused != nil {
		return in, "", refused
	}
	prometheus := &pod.Spec.Containers[index]
	version, unknown := versionOf(pod, prometheus)
	if refused := tooOld(prometheus, version); refused != nil {
		return in, "", refused
	}
	source, refused := locateConfig(pod, index)
	if refused != nil {
		return in, "", refused
	}
	runsAs := userOf(pod, prometheus, o.Policy.Sidecar.SecurityContext)
	if refused := unreadable(pod, &pod.Spec.Volumes[source.volume], runsAs); refused != nil {
		return in, "", refused
	}
	if refused := requireToken(pod, o.Policy); refused != nil {
		return in, "", refused
	}
	missing := missingForSigV4(prometheus, version, unknown, source)
	notice = sigV4Refused(e, missing)
	e, why := decideDelivery(e, missing)
	environment, refused := planEnvironment(pod, prometheus, e, o)
	if refused != nil {
		return in, "", refused
	}
	common := o.Cache.of(o.Policy, e)
	resources, encodedResources := common.resources, common.encodedResources
	if len(o.Limits.Ranges)+len(o.Limits.Quotas) > 0 || pod.Spec.Resources.any() || guaranteed(pod) {
		encodedResources = nil
		if resources, refused = fitResources(o.Policy.Sidecar.Resources, pod, o.Limits); refused != nil {
			return in, "", refused
		}
	}
	image := cmp.Or(o.Policy.Sidecar.Image, o.Image)
	if image == "" {
		return in, "", refuse(
			NoSidecarImage,
			"the webhook does not know the sidecar's image: the cluster admin must set sidecar.image in the policy",
		)
	}

	a := common.config
	a.File, a.Private = source.file, runsAs.prometheus
	a.Prometheus, a.MountPoints = listening(prometheus), source.points
	if !version.IsZero() {
		a.Prometheus.Version = version.String()
	}
	port, metrics := chooseMetricsPort(pod)
	a.MetricsPort = port.ContainerPort
	if !metrics {
		a.MetricsPort = sidecarconfig.NoMetrics
	}
	text := common.encoder.Append(make([]byte, 0, common.encoder.Size()+256), a)
	config := &pod.Spec.Volumes[source.volume]
	moved, err := config.renamed(sidecarconfig.VolumeSource)
	if err != nil {
		return in, "", refuse(MalformedPod, "volume %q: %v", config.Name, err)
	}

	added := sidecar(image, config.Name, string(text), tokenOf(o.Policy), runsAs, resources)
	added.encodedResources = encodedResources
	if metrics {
		added.Ports = []Port{port}
	}
	added.Env = append(added.Env, common.identity...)
	added.Env = append(added.Env, proxyEnv(prometheus, a)...)
	return injection{
		mark: appendMark(a, common.mark, text, source.reload, why), common: common,
		prometheus: index, config: source.volume, moved: moved, environment: environment, sidecar: added,
	}, notice, nil
}

// operations returns the patch for the injection.
func (in *injection) operations(pod *Pod, o Options) ([]jsonpatch.Operation, error) {
	var p patch
	config, prometheus := pod.Spec.Volumes[in.config].Name, &pod.Spec.Containers[in.prometheus]
	p.annotate(pod.Metadata.Annotations, AnnotationInjected, in.mark)
	memory := memoryVolume(config, o.Policy.Sidecar)
	p.replace(pointer("spec", "volumes", in.config), &memory)
	// The list exists, because the configuration's volume is in it.
	p.add("/spec/volumes/-", in.moved)
	for _, v := range in.common.volumes {
		p.add("/spec/volumes/-", v)
	}
	readOnly(&p, "/spec/initContainers", pod.Spec.InitContainers, config)
	readOnly(&p, "/spec/containers", pod.Spec.Containers, config)
	at := pointer("spec", "containers", in.prometheus)
	appendTo(&p, at+"/env", prometheus.Env, in.environment.env...)
	appendTo(&p, at+"/volumeMounts", prometheus.VolumeMounts, in.environment.mounts...)
	appendTo(&p, "/spec/imagePullSecrets", pod.Spec.ImagePullSecrets, missingSecrets(pod, o)...)
	// This is the last operation, because it changes the indexes of the other init containers.
	if pod.Spec.InitContainers == nil {
		appendTo(&p, "/spec/initContainers", pod.Spec.InitContainers, in.sidecar)
	} else {
		p.add("/spec/initContainers/0", &in.sidecar)
	}
	return p.operations, p.err
}

// yes is the encoded value true.
var yes = raw([]byte("true"))

// readOnly makes all writable mounts of a volume read-only, except the sidecar's.
func readOnly(p *patch, list string, containers []Container, volume string) {
	for i := range containers {
		for j, m := range containers[i].VolumeMounts {
			if m.Name == volume && !m.ReadOnly && containers[i].Name != sidecarconfig.ContainerName {
				p.add(list+"/"+strconv.Itoa(i)+"/volumeMounts/"+strconv.Itoa(j)+"/readOnly", yes)
			}
		}
	}
}

// checkExisting looks for an injection. It returns [AlreadyInjected] if all parts exist,
// [PartlyInjected] if only some exist, and nil if there are none.
func checkExisting(pod *Pod) *policy.Decision {
	// The first part that exists and the first part that is missing, each by kind and name.
	var found, missing [2]string
	see := func(kind, name string, there bool) {
		if at := [2]string{kind, name}; there {
			found = cmp.Or(found, at)
		} else {
			missing = cmp.Or(missing, at)
		}
	}
	_, annotated := pod.Metadata.Annotations[AnnotationInjected]
	see("annotation", AnnotationInjected, annotated)
	for _, name := range []string{sidecarconfig.VolumeSource, sidecarconfig.VolumeCredentials, sidecarconfig.VolumeToken,
		sidecarconfig.VolumeNoAPIToken} {
		if name == sidecarconfig.VolumeToken && usesAzureToken(pod) {
			continue
		}
		see("volume", name, pod.volume(name) >= 0)
	}
	named := slices.ContainsFunc(pod.Spec.Containers, func(c Container) bool { return c.Name == sidecarconfig.ContainerName })
	whole := false
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == sidecarconfig.ContainerName {
			named = true
			_, err := sidecarconfig.Decode(encodedConfig(pod))
			whole = err == nil
		}
	}
	see("container", sidecarconfig.ContainerName, named)
	none := [2]string{}
	switch {
	case found == none:
		return nil
	case missing == none && whole:
		return refuse(AlreadyInjected, "")
	case missing == none:
		return refuse(
			PartlyInjected,
			"container %s is not the config sidecar: rename it, and remove everything else named ampbridge from the pod",
			sidecarconfig.ContainerName,
		)
	}
	return refuse(
		PartlyInjected, "the pod has %s %s, but no %s %s: remove everything named ampbridge from its manifest",
		found[0], found[1], missing[0], missing[1],
	)
}

// usesAzureToken reports whether the pod's sidecar uses the token of Azure's webhook.
func usesAzureToken(pod *Pod) bool {
	return slices.ContainsFunc(pod.Spec.InitContainers, func(c Container) bool {
		return c.Name == sidecarconfig.ContainerName && pod.volume(sidecarconfig.VolumeToken) < 0 &&
			slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return m.Name == azureVolume })
	})
}

// checkSupported refuses pods for which no patch can work.
func checkSupported(pod *Pod) *policy.Decision {
	if pod.Metadata.Name == "" && pod.Metadata.GenerateName == "" {
		return refuse(MalformedPod, "the pod has neither a name nor a generateName")
	}
	windows := pod.Spec.OS.Name == "windows" || pod.Spec.NodeSelector["kubernetes.io/os"] == "windows" ||
		len(pod.Spec.SecurityContext.WindowsOptions) > 0
	for i := range pod.Spec.Volumes {
		if name := pod.Spec.Volumes[i].Name; name == "" || pod.volume(name) != i {
			return refuse(MalformedPod, "the name of volume %q is empty, or another volume has the same name", name)
		}
	}
	for c := range pod.all {
		windows = windows || len(c.SecurityContext.WindowsOptions) > 0
	}
	if isVirtual(pod) {
		return refuse(
			VirtualNode,
			"the pod requests a virtual node, which does not support native sidecars: give Prometheus an ordinary node "+
				"(nodeSelector without type: virtual-kubelet)",
		)
	}
	if windows {
		return refuse(
			Windows,
			"the config sidecar runs on Linux nodes only: give Prometheus a Linux node (nodeSelector kubernetes.io/os: linux)",
		)
	}
	return nil
}

// isVirtual reports whether the pod's node selector requests a node of a virtual kubelet. Such a
// node treats a native sidecar as an init container that never ends, so Prometheus never starts.
func isVirtual(pod *Pod) bool {
	return pod.Spec.NodeSelector["type"] == "virtual-kubelet"
}

// mark returns the value of [AnnotationInjected] for a sidecar with config a. text is the encoded
// config.
func mark(a sidecarconfig.Config, text string, reload Reload, why string) string {
	return appendMark(a, appendDestinations(nil, a), []byte(text), reload, why)
}

// appendMark returns the encoding of an [Injected]. destinations is the result of
// [appendDestinations].
func appendMark(a sidecarconfig.Config, destinations, text []byte, reload Reload, why string) string {
	b := make([]byte, 0, 512)
	b = strconv.AppendInt(append(b, `{"version":`...), int64(a.Version), 10)
	b = append(b, destinations...)
	if why != "" {
		b = appendString(append(b, `,"why":`...), why)
	}
	sum := sha256.Sum256(text)
	b = hex.AppendEncode(append(b, `,"policy":"`...), sum[:6])
	b = appendString(append(b, `","reload":`...), string(reload))
	b = strconv.AppendInt(append(b, `,"metricsPort":`...), int64(max(a.MetricsPort, 0)), 10)
	return string(append(b, '}'))
}

// markOf returns the mark of a pod with config a. text is the encoded config.
func markOf(a sidecarconfig.Config, text string, reload Reload, why string) Injected {
	sum := sha256.Sum256([]byte(text))
	m := Injected{
		Version: a.Version, Policy: hex.EncodeToString(sum[:6]), Reload: reload, MetricsPort: max(a.MetricsPort, 0),
		Delivery: map[string]policy.Delivery{}, Why: why,
	}
	for _, d := range a.Destinations {
		m.Destinations = append(m.Destinations, d.Name)
		m.Delivery[d.Name] = a.DeliveryOf(d)
	}
	return m
}

func (m Injected) encode() string {
	value, err := json.Marshal(m, json.Deterministic(true))
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	return string(value)
}

// appendDestinations appends the members of an [Injected] that list the destinations.
func appendDestinations(b []byte, a sidecarconfig.Config) []byte {
	named := slices.Clone(a.Destinations)
	b = append(b, `,"destinations":[`...)
	for i, d := range named {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, d.Name)
	}
	b = append(b, ']')
	slices.SortFunc(named, func(x, y sidecarconfig.Destination) int { return strings.Compare(x.Name, y.Name) })
	for i, d := range named {
		if i == 0 {
			b = append(b, `,"delivery":{`...)
		} else {
			b = append(b, ',')
		}
		b = appendString(append(appendString(b, d.Name), ':'), string(a.DeliveryOf(d)))
	}
	if len(named) > 0 {
		b = append(b, '}')
	}
	return b
}

// missingSecrets returns the policy's image pull secrets that the pod does not have.
func missingSecrets(pod *Pod, o Options) []policy.SecretRef {
	var missing []policy.SecretRef
	for _, s := range o.Policy.Sidecar.ImagePullSecrets {
		if !slices.Contains(pod.Spec.ImagePullSecrets, s) && !slices.Contains(missing, s) {
			missing = append(missing, s)
		}
	}
	return missing
}
