package inject

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// The modes identity and relay are for programs other than Prometheus: collectors, and programs
// that query. The pod names its containers in ampbridge.io/container.
//
//   identity   the containers get the token and the AWS environment, and nothing else
//   relay      the containers get the relay's address and password file; the sidecar gets
//              the token and forwards the requests
//
// Nothing is detected, and no configuration is edited. As in mode prometheus, the pod is injected
// completely or stays unchanged. If another webhook changes an injected pod, the injection is
// repaired or undone.

// addition is what is added to a pod with mode identity or relay.
type addition struct {
	mark    string
	volumes []addedVolume
	// annotations are the annotations in addition to the mark.
	annotations map[string]string
	containers  []namedContainer
	// sidecar is nil for mode identity.
	sidecar *container
}

// namedContainer is a container that the pod names, with what is added to it.
type namedContainer struct {
	*Container
	// at is the container's JSON pointer.
	at          string
	addedEnv    []EnvVar
	addedMounts []VolumeMount
}

// injectNamed implements [Inject] for the modes identity and relay.
func injectNamed(pod *Pod, d policy.Decision, o Options) ([]jsonpatch.Operation, policy.Decision) {
	_, marked := pod.Metadata.Annotations[AnnotationInjected]
	if marked && ModeOf(pod) != d.Mode {
		return nil, *otherMode(pod, d.Mode)
	}
	if !marked {
		if name := ownVolumeOf(pod); name != "" {
			return nil, *refuse(PartlyInjected, "the pod has volume %q, but no annotation %s: remove everything named ampbridge from its manifest",
				name, AnnotationInjected)
		}
		add, refused := planNamed(pod, d.Entitlement, o)
		if refused != nil {
			return nil, *refused
		}
		operations, err := add.operations(pod, o)
		if err != nil {
			return nil, *refuse(MalformedPod, "the patch cannot be encoded: %v", err)
		}
		return operations, d
	}

	already := d
	already.Reason = AlreadyInjected
	plain, undo := undoneNamed(pod)
	unlimited := o
	unlimited.Limits = Limits{} // resources are not repaired
	add, refused := planNamed(plain, d.Entitlement, unlimited)
	if refused == nil {
		if add.presentIn(pod) {
			return nil, already
		}
		again, err := add.operations(plain, o)
		if err == nil {
			return append(undo, again...), already
		}
		refused = refuse(MalformedPod, "the patch cannot be encoded: %v", err)
	}
	refused.Warning = warning("another webhook has changed the injected pod, so the injection is undone: ") + refused.Warning
	refused.Warning = shorten(refused.Warning, maxWarning)
	return undo, *refused
}

// otherMode refuses a pod with an injection of another mode than the policy's.
func otherMode(pod *Pod, m policy.Mode) *policy.Decision {
	return refuse(PartlyInjected, "the pod has an injection of mode %s, but the policy gives it mode %s: create it from its original manifest",
		string(cmp.Or(ModeOf(pod), policy.ModePrometheus)), string(cmp.Or(m, policy.ModePrometheus)))
}

// namedVolumes are the names of all volumes that these modes add.
var namedVolumes = []string{
	sidecarconfig.VolumeCredentials, sidecarconfig.VolumeToken, sidecarconfig.VolumeNoAPIToken, sidecarconfig.VolumeAWSConfig,
}

// ownVolumeOf returns the first volume of the pod with one of ampbridge's names; empty if there is
// none.
func ownVolumeOf(pod *Pod) string {
	for i := range pod.Spec.Volumes {
		if name := pod.Spec.Volumes[i].Name; slices.Contains(namedVolumes, name) || slices.Contains(ownVolumes, name) {
			return name
		}
	}
	return ""
}

// planNamed returns what is added to a pod without an injection.
func planNamed(pod *Pod, e policy.Entitlement, o Options) (a addition, refused *policy.Decision) {
	if refused := checkSupported(pod); refused != nil {
		return a, refused
	}
	named, refused := namedContainers(pod)
	if refused != nil {
		return a, refused
	}
	if refused := requireToken(pod, o.Policy); refused != nil {
		return a, refused
	}
	if e.Mode == policy.ModeRelay {
		return planRelay(pod, named, e, o)
	}
	return planIdentity(pod, named, e, o)
}

// namedContainers returns the containers that the pod names. It refuses ordinary init containers:
// their programs cannot wait for a session, and if they fail the pod does not start.
func namedContainers(pod *Pod) ([]namedContainer, *policy.Decision) {
	var found []namedContainer
	for name := range strings.SplitSeq(pod.Metadata.Annotations[policy.AnnotationContainer], ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			return nil, refuse(NoSuchContainer, "annotation %s has an empty name: write NAME, or NAME,NAME", policy.AnnotationContainer)
		}
		if slices.ContainsFunc(found, func(c namedContainer) bool { return c.Name == name }) {
			return nil, refuse(NoSuchContainer, "annotation %s names %q twice: keep one", policy.AnnotationContainer, name)
		}
		c := namedContainer{}
		for i := range pod.Spec.Containers {
			if pod.Spec.Containers[i].Name == name {
				c = namedContainer{Container: &pod.Spec.Containers[i], at: pointer("spec", "containers", i)}
			}
		}
		for i := range pod.Spec.InitContainers {
			switch init := &pod.Spec.InitContainers[i]; {
			case init.Name != name || init.Name == sidecarconfig.ContainerName:
			case !init.sidecar():
				return nil, refuse(NoSuchContainer, "annotation %s names the init container %q, which ends before the pod runs: name containers, "+
					"or init containers with restartPolicy: Always", policy.AnnotationContainer, name)
			default:
				c = namedContainer{Container: init, at: pointer("spec", "initContainers", i)}
			}
		}
		if c.Container == nil {
			return nil, refuse(NoSuchContainer, "annotation %s names %q, but the pod has no such container: write one of %s",
				policy.AnnotationContainer, name, strings.Join(containerNames(pod), ", "))
		}
		found = append(found, c)
	}
	return found, nil
}

func containerNames(pod *Pod) []string {
	var names []string
	for i := range pod.Spec.Containers {
		names = append(names, pod.Spec.Containers[i].Name)
	}
	return names
}

// covered refuses a container with a mount above or below the directory of m.
func (c *namedContainer) covered(m VolumeMount) *policy.Decision {
	for _, have := range c.VolumeMounts {
		if have.Name == m.Name && path.Clean(have.MountPath) == m.MountPath {
			continue // Azure's webhook has mounted it
		}
		_, over := below(path.Clean(have.MountPath), m.MountPath)
		_, under := below(m.MountPath, path.Clean(have.MountPath))
		if over || under {
			return refuse(MountConflict, "container %q has a mount at %q, which covers %s: mount it elsewhere", c.Name, have.MountPath, m.MountPath)
		}
	}
	return nil
}

// addMount adds a mount if the container lacks it.
func (c *namedContainer) addMount(m VolumeMount) {
	if !c.mounts(m.MountPath) {
		c.addedMounts = append(c.addedMounts, m)
	}
}

// operations returns the patch for the addition.
func (a *addition) operations(pod *Pod, o Options) ([]jsonpatch.Operation, error) {
	var p patch
	have := pod.Metadata.Annotations
	p.annotate(have, AnnotationInjected, a.mark)
	if have == nil {
		have = map[string]string{} // the first operation has created it
	}
	for key, value := range a.annotations {
		p.annotate(have, key, value)
	}
	appendTo(&p, "/spec/volumes", pod.Spec.Volumes, a.volumes...)
	for _, c := range a.containers {
		appendTo(&p, c.at+"/env", c.Env, c.addedEnv...)
		appendTo(&p, c.at+"/volumeMounts", c.VolumeMounts, c.addedMounts...)
	}
	if a.sidecar != nil {
		appendTo(&p, "/spec/imagePullSecrets", pod.Spec.ImagePullSecrets, missingSecrets(pod, o)...)
		// This is the last operation, because it changes the indexes of the other init containers.
		if pod.Spec.InitContainers == nil {
			p.add("/spec/initContainers", []container{*a.sidecar})
		} else {
			p.add("/spec/initContainers/0", *a.sidecar)
		}
	}
	return p.operations, p.err
}

// presentIn reports whether the pod has the whole addition unchanged. Additions of others to the
// sidecar are allowed.
func (a *addition) presentIn(pod *Pod) bool {
	for key, value := range a.annotations {
		if pod.Metadata.Annotations[key] != value {
			return false
		}
	}
	for _, v := range a.volumes {
		kind := map[bool]string{true: "projected", false: "emptyDir"}[v.Projected != nil]
		if v.DownwardAPI != nil {
			kind = "downwardAPI"
		}
		if i := pod.volume(v.Name); i < 0 || pod.Spec.Volumes[i].kind() != kind {
			return false
		}
	}
	for _, named := range a.containers {
		c := pod.container(named.Name)
		if c == nil || !has(c, named.addedEnv, named.addedMounts) {
			return false
		}
	}
	if a.sidecar == nil {
		return true
	}
	i, _ := sidecarVariable(pod)
	if i != 0 { // its port must be open before other containers write to it
		return false
	}
	c := &pod.Spec.InitContainers[i]
	want := a.sidecar
	return c.sidecar() && has(c, nil, want.VolumeMounts) && slices.Equal(c.Command, want.Command) &&
		slices.Equal(c.StartupProbe.Exec.Command, want.StartupProbe.Exec.Command) &&
		slices.Equal(c.LivenessProbe.Exec.Command, want.LivenessProbe.Exec.Command) && want.SecurityContext.kept(&c.SecurityContext)
}

// has reports whether the container has the variables and mounts unchanged.
func has(c *Container, env []EnvVar, mounts []VolumeMount) bool {
	for _, v := range env {
		if !slices.Contains(c.Env, v) {
			return false
		}
	}
	for _, m := range mounts {
		if !slices.ContainsFunc(c.VolumeMounts, func(have VolumeMount) bool {
			return have.Name == m.Name && path.Clean(have.MountPath) == m.MountPath && have.ReadOnly == m.ReadOnly && !have.part()
		}) {
			return false
		}
	}
	return true
}

// container returns the container or init container with a name; nil if there is none.
func (p *Pod) container(name string) *Container {
	for c := range p.all {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// undoneNamed returns the pod without its injection, and the operations that remove the injection.
// The pull secrets stay, because nothing shows whether the pod had them before.
func undoneNamed(pod *Pod) (plain *Pod, operations []jsonpatch.Operation) {
	var p patch
	without := *pod
	plain = &without
	plain.Metadata.Annotations = map[string]string{}
	for key, value := range pod.Metadata.Annotations {
		if key == AnnotationInjected || key == AnnotationAWSConfig {
			p.remove(pointer("metadata", "annotations", key))
		} else {
			plain.Metadata.Annotations[key] = value
		}
	}
	var own []EnvVar
	for c := range pod.all {
		own = append(own, addedRow(c.Env)...)
	}
	plain.Spec.InitContainers = withoutParts(&p, "/spec/initContainers", pod.Spec.InitContainers, namedVolumes, own)
	plain.Spec.Containers = withoutParts(&p, "/spec/containers", pod.Spec.Containers, namedVolumes, own)
	plain.Spec.Volumes = slices.Clone(pod.Spec.Volumes)
	for i, v := range slices.Backward(pod.Spec.Volumes) {
		if slices.Contains(namedVolumes, v.Name) {
			p.remove(pointer("spec", "volumes", i))
			plain.Spec.Volumes = slices.Delete(plain.Spec.Volumes, i, i+1)
		}
	}
	return plain, p.operations
}

// addedNames are the variables that these modes add, in the order in which they are added.
var addedNames = []string{
	variableConfigFile, variableLoadConfig, variableRole, variableToken, variableRegion, variableDefaultRegion, variableRegionalSTS,
	variableEndpointSTS, sidecarconfig.WriteURLVariable, sidecarconfig.WriteUserVariable, sidecarconfig.WritePasswordFileVariable,
}

// addedRow returns the variables that were added to a container under any policy. They are
// consecutive. The first or second one is a variable that only ampbridge writes, and the rest
// follows in the order of addedNames.
func addedRow(env []EnvVar) []EnvVar {
	for i, v := range env {
		token := v.Name == variableRole && i+1 < len(env) && env[i+1].Name == variableToken &&
			(env[i+1].Value == sidecarconfig.TokenDir+"/"+sidecarconfig.TokenFile || env[i+1].Value == azureTokenDir+"/"+azureTokenName)
		if !token && v.Name != sidecarconfig.WriteURLVariable && (v != EnvVar{Name: variableConfigFile, Value: awsConfigFile}) {
			continue
		}
		end := i + 1
		for end < len(env) && slices.Index(addedNames, env[end].Name) > slices.Index(addedNames, env[end-1].Name) {
			end++
		}
		return env[i:end]
	}
	return nil
}
