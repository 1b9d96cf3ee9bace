package inject

import (
	"path"
	"slices"

	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// The API server calls the webhook again if a later webhook has changed the pod. The state of
// ampbridge's own parts decides what happens:
//
//   - All parts exist: [repair] restores what was changed in them.
//   - Parts are missing, or the sidecar is too late in the list: the injection is undone and
//     made again.
//   - The pod can no longer be injected: the injection is undone, with a warning.
//   - The configuration's volume, or its name, cannot be found: the pod stays unchanged, with
//     a warning.
//
// A repair keeps what others added to the sidecar: mounts, variables, another image.

// reinvoke returns the operations for a pod with an injection or with parts of one. existing is the
// result of [checkExisting].
func reinvoke(pod *Pod, d policy.Decision, o Options, existing *policy.Decision) ([]jsonpatch.Operation, policy.Decision) {
	whole := existing.Reason == AlreadyInjected
	already := d
	already.Reason = AlreadyInjected
	plain, undo, found := undone(pod, d.Entitlement, o.Policy)
	if !found && whole {
		return withdraw(pod, d.Entitlement, o), already
	} else if !found {
		return nil, *existing
	}
	if whole {
		unlimited := o
		if sidecar, _ := sidecarVariable(pod); pod.Spec.InitContainers[sidecar].Resources.valid() {
			unlimited.Limits = Limits{} // they stay unchanged
		}
		in, _, refused := plan(plain, d.Entitlement, unlimited)
		if refused == nil && repairable(pod, plain.Spec.Volumes[in.config].Name) {
			return append(repair(pod, plain, &in, o), withdraw(pod, d.Entitlement, o)...), already
		}
		if refused != nil && startable(pod) {
			return withdraw(pod, d.Entitlement, o), already
		}
	}
	again, _, refused := inject(plain, d.Entitlement, o)
	if refused != nil {
		refused.Warning = warning("another webhook has changed the injected pod, so the injection is undone: ") + refused.Warning
		refused.Warning = shorten(refused.Warning, maxWarning)
		return undo, *refused
	}
	return append(undo, again...), already
}

// ours reports whether a container is the config sidecar, and not another container with its name.
func (c *Container) ours() bool {
	return c.Name == sidecarconfig.ContainerName &&
		(c.setsEnv(sidecarconfig.Variable) || c.mounts(sidecarconfig.SourceDir) ||
			len(c.Command) > 0 && c.Command[0] == sidecarconfig.Program)
}

// startable reports whether the API server and the kubelet accept the sidecar unchanged.
func startable(pod *Pod) bool {
	i, _ := sidecarVariable(pod)
	c := &pod.Spec.InitContainers[i]
	return c.sidecar() && len(c.StartupProbe.Exec.Command) > 0 && c.StartupProbe.runs(c.StartupProbe.Exec.Command) &&
		c.LivenessProbe.runs(c.LivenessProbe.Exec.Command) && c.Resources.valid() && !repeated(c.VolumeMounts)
}

// repeated reports whether two mounts have the same path. The API server refuses such mounts.
func repeated(mounts []VolumeMount) bool {
	seen := map[string]bool{}
	for i := range mounts {
		dir := path.Clean(mounts[i].MountPath)
		if seen[dir] {
			return true
		}
		seen[dir] = true
	}
	return false
}

// repairable reports whether the volume that the sidecar fills exists, the sidecar exists exactly
// once, and no init container before it needs the volume.
func repairable(pod *Pod, volume string) bool {
	named := 0
	for c := range pod.all {
		if c.Name == sidecarconfig.ContainerName {
			named++
		}
	}
	if named != 1 || pod.volume(volume) < 0 {
		return false
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.ours() {
			return true
		}
		if slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return m.Name == volume }) {
			return false
		}
	}
	return true
}

// repair returns the operations that restore what was changed of the injection in. plain is the pod
// without the injection.
func repair(pod, plain *Pod, in *injection, o Options) []jsonpatch.Operation {
	var p patch
	index, variable := sidecarVariable(pod)
	c, want := &pod.Spec.InitContainers[index], &in.sidecar
	at := pointer("spec", "initContainers", index)
	if !c.sidecar() {
		p.add(at+"/restartPolicy", want.RestartPolicy)
	}
	if !slices.Equal(c.Command, want.Command) {
		p.add(at+"/command", want.Command)
	}
	if !c.StartupProbe.runs(want.StartupProbe.Exec.Command) {
		p.add(at+"/startupProbe", want.StartupProbe)
	}
	if !c.LivenessProbe.runs(want.LivenessProbe.Exec.Command) {
		p.add(at+"/livenessProbe", want.LivenessProbe)
	}
	if !c.Resources.valid() {
		p.add(at+"/resources", want.Resources)
	}
	want.SecurityContext.repair(&p, at+"/securityContext", &c.SecurityContext)
	var missing []EnvVar
	for _, v := range want.Env {
		if !c.setsEnv(v.Name) {
			missing = append(missing, v)
		}
	}
	appendTo(&p, at+"/env", c.Env, missing...)
	remount(&p, at, c, want.VolumeMounts)

	config := plain.Spec.Volumes[in.config].Name
	for _, name := range []string{config, sidecarconfig.VolumeCredentials, sidecarconfig.VolumeNoAPIToken} {
		if i := pod.volume(name); !pod.Spec.Volumes[i].inMemory() {
			p.replace(pointer("spec", "volumes", i), memoryVolume(name, o.Policy.Sidecar))
		}
	}
	readOnly(&p, "/spec/initContainers", pod.Spec.InitContainers, config)
	readOnly(&p, "/spec/containers", pod.Spec.Containers, config)

	prometheus := &pod.Spec.Containers[in.prometheus]
	at = pointer("spec", "containers", in.prometheus)
	if hasSigV4(c.Env[variable]) && slices.Contains(in.environment.env, ownCredentials) && !prometheus.setsEnv(ownCredentials.Name) {
		appendTo(&p, at+"/env", prometheus.Env, ownCredentials)
	}
	remount(&p, at, prometheus, in.environment.mounts[:1])
	return p.operations
}

// hasSigV4 reports whether a sidecar config has a destination with sigv4.
func hasSigV4(config EnvVar) bool {
	a, err := sidecarconfig.Decode(unescape(config.Value))
	return err == nil && slices.ContainsFunc(a.Destinations, func(d sidecarconfig.Destination) bool {
		return a.DeliveryOf(d) == policy.DeliverySigV4
	})
}

// remount adds the wanted mounts that a container lacks, and replaces wanted mounts that were
// changed. It removes other mounts with the path of a wanted one; in the sidecar it removes all
// mounts with a repeated path.
func remount(p *patch, at string, c *Container, want []VolumeMount) {
	for _, m := range want {
		i := slices.IndexFunc(c.VolumeMounts, func(have VolumeMount) bool { return path.Clean(have.MountPath) == m.MountPath })
		switch {
		case i < 0 && c.VolumeMounts == nil:
			p.add(at+"/volumeMounts", want)
			return
		case i < 0:
			p.add(at+"/volumeMounts/-", m)
		case c.VolumeMounts[i].Name != m.Name || c.VolumeMounts[i].part() || c.VolumeMounts[i].ReadOnly != m.ReadOnly:
			p.replace(at+pointer("volumeMounts", i), m)
		}
	}
	taken := map[string]bool{}
	var others []int
	for i := range c.VolumeMounts {
		dir := path.Clean(c.VolumeMounts[i].MountPath)
		if taken[dir] && (c.ours() || slices.ContainsFunc(want, func(m VolumeMount) bool { return m.MountPath == dir })) {
			others = append(others, i)
		}
		taken[dir] = true
	}
	for _, i := range slices.Backward(others) {
		p.remove(at + pointer("volumeMounts", i))
	}
}

// repair restores the members of the security context that a container lacks, and removes
// additional permissions. Additions of a platform stay, for example SELinux options.
func (s *restrictedSecurity) repair(p *patch, at string, is *SecurityContext) {
	if is.unset() {
		p.add(at, s)
		return
	}
	differs := func(want, is *int64) bool { return want != nil && (is == nil || *want != *is) }
	if differs(s.RunAsUser, is.RunAsUser) {
		p.add(at+"/runAsUser", s.RunAsUser)
	}
	if differs(s.RunAsGroup, is.RunAsGroup) {
		p.add(at+"/runAsGroup", s.RunAsGroup)
	} else if s.RunAsGroup == nil && is.RunAsGroup != nil {
		p.remove(at + "/runAsGroup")
	}
	if s.RunAsNonRoot != is.RunAsNonRoot {
		p.add(at+"/runAsNonRoot", s.RunAsNonRoot)
	}
	if !is.ReadOnlyRootFilesystem {
		p.add(at+"/readOnlyRootFilesystem", true)
	}
	if is.Privileged {
		p.remove(at + "/privileged")
	}
	if !is.AllowPrivilegeEscalation {
		p.add(at+"/allowPrivilegeEscalation", false)
	}
	if !is.Capabilities {
		p.add(at+"/capabilities", s.Capabilities)
	}
	if s.SeccompProfile.Type != "" && is.SeccompProfile.Type == "" {
		p.add(at+"/seccompProfile", s.SeccompProfile)
	}
}

// kept reports whether nothing needs repair.
func (s *restrictedSecurity) kept(is *SecurityContext) bool {
	var p patch
	s.repair(&p, "", is)
	return len(p.operations) == 0
}

// unset reports whether no member that injection sets has a value.
func (s *SecurityContext) unset() bool {
	return s.RunAsUser == nil && s.RunAsGroup == nil && !s.RunAsNonRoot && !s.ReadOnlyRootFilesystem && !s.Privileged &&
		!bool(s.AllowPrivilegeEscalation) && !bool(s.Capabilities) && s.SeccompProfile.Type == ""
}

// inMemory reports whether the volume is an emptyDir in memory.
func (v *Volume) inMemory() bool {
	size, is := v.emptyDir()
	return is && size.Medium == string(corev1.StorageMediumMemory)
}

func (v *Volume) emptyDir() (e emptyDir, is bool) {
	source, err := v.source()
	if err != nil || source.EmptyDir == nil {
		return e, false
	}
	return *source.EmptyDir, true
}

// interposed returns two names: that of the volume with the pod's own configuration, and that of
// the memory volume that replaces it. Both are empty if they cannot be determined.
func interposed(pod *Pod) (source, target string) {
	var sidecar *Container
	for c := range pod.all {
		if c.ours() {
			sidecar = c
		}
	}
	_, annotated := pod.Metadata.Annotations[AnnotationInjected]
	if sidecar == nil && !annotated {
		return "", ""
	}
	source, target = sidecar.volumeAt(sidecarconfig.SourceDir), sidecar.volumeAt(sidecarconfig.TargetDir)
	if pod.volume(sidecarconfig.VolumeSource) >= 0 {
		source = sidecarconfig.VolumeSource
	} else if source == "" || pod.volume(source) < 0 {
		// The volume was renamed, but not its mounts.
		source = onlyVolume(pod, func(v *Volume) bool {
			return slices.Contains([]string{"configMap", "secret", "projected"}, v.kind()) && !pod.mounted(v.Name) &&
				!slices.Contains(ownVolumes, v.Name)
		})
	}
	if target == "" {
		target = onlyVolume(pod, func(v *Volume) bool {
			size, _ := v.emptyDir()
			return v.inMemory() && size.SizeLimit != "" && !slices.Contains(ownVolumes, v.Name) && pod.mounted(v.Name)
		})
	}
	if i := pod.volume(target); source == "" || source == target || i >= 0 && pod.Spec.Volumes[i].kind() != "emptyDir" {
		return "", ""
	}
	return source, target
}

// ownVolumes are the names of the volumes that injection adds.
var ownVolumes = []string{
	sidecarconfig.VolumeSource, sidecarconfig.VolumeCredentials, sidecarconfig.VolumeToken, sidecarconfig.VolumeNoAPIToken,
}

// volumeAt returns the name of the volume that is mounted at a path; empty if there is none.
func (c *Container) volumeAt(dir string) string {
	if c != nil {
		for i := range c.VolumeMounts {
			if path.Clean(c.VolumeMounts[i].MountPath) == dir {
				return c.VolumeMounts[i].Name
			}
		}
	}
	return ""
}

// onlyVolume returns the name of the only volume for which is returns true; empty if there are none
// or several.
func onlyVolume(pod *Pod, is func(*Volume) bool) (name string) {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; is(v) {
			if name != "" {
				return ""
			}
			name = v.Name
		}
	}
	return name
}

// mounted reports whether a container mounts the volume.
func (p *Pod) mounted(volume string) bool {
	for c := range p.all {
		if slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return m.Name == volume }) {
			return true
		}
	}
	return false
}

// undone returns the pod without its injection, and the operations that remove the injection. Two
// things stay, because nothing shows whether the pod had them before, and because they have no
// effect: readOnly at the mounts of the configuration, which the pod only reads, and the pull
// secrets. found is false if the configuration's volume or its name cannot be determined.
func undone(pod *Pod, e policy.Entitlement, o *policy.Policy) (plain *Pod, operations []jsonpatch.Operation, found bool) {
	source, target := interposed(pod)
	if target == "" {
		return nil, nil, false
	}
	for c := range pod.all {
		if c.Name == sidecarconfig.ContainerName && !c.ours() {
			return nil, nil, false
		}
	}
	var p patch
	without := *pod
	plain = &without
	plain.prometheus = prometheusOf(pod)
	if _, annotated := pod.Metadata.Annotations[AnnotationInjected]; annotated {
		plain.Metadata.Annotations = map[string]string{}
		for key, value := range pod.Metadata.Annotations {
			if key != AnnotationInjected {
				plain.Metadata.Annotations[key] = value
			}
		}
		p.remove(annotationPath)
	}
	added := addedVolumes(pod, source)
	plain.Spec.InitContainers = withoutParts(&p, "/spec/initContainers", pod.Spec.InitContainers, added, nil)
	plain.Spec.Containers = withoutParts(&p, "/spec/containers", pod.Spec.Containers, added, append(identityEnv(e, o), ownCredentials))

	moved, err := pod.Spec.Volumes[pod.volume(source)].renamed(target)
	if err != nil {
		return nil, nil, false
	}
	own := pod.Spec.Volumes[pod.volume(source)]
	own.Name = target
	plain.Spec.Volumes = slices.Clone(pod.Spec.Volumes)
	if i := pod.volume(target); i >= 0 {
		p.replace(pointer("spec", "volumes", i), moved)
		plain.Spec.Volumes[i] = own
	} else {
		p.add("/spec/volumes/-", moved)
		plain.Spec.Volumes = append(plain.Spec.Volumes, own)
	}
	for i, v := range slices.Backward(pod.Spec.Volumes) {
		if slices.Contains(added, v.Name) {
			p.remove(pointer("spec", "volumes", i))
			plain.Spec.Volumes = slices.Delete(plain.Spec.Volumes, i, i+1)
		}
	}
	return plain, p.operations, p.err == nil
}

// prometheusOf returns the name of the container that injection has selected. If another webhook
// has changed the image or the labels, they no longer show which container is Prometheus. The name
// is empty if it cannot be determined.
func prometheusOf(pod *Pod) string {
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if !c.ours() && (c.volumeAt(sidecarconfig.CredentialsDir) != "" || c.mounts(sidecarconfig.CredentialsDir)) {
			return c.Name
		}
	}
	return ""
}

// Carries reports whether a pod has the config sidecar. Such a pod runs Prometheus, even if another
// webhook has changed its image and labels since.
func Carries(pod *Pod) bool {
	for c := range pod.all {
		if c.ours() {
			return true
		}
	}
	return false
}

// addedVolumes returns the names of the volumes that injection added. It includes volumes that were
// renamed together with their mounts.
func addedVolumes(pod *Pod, source string) []string {
	added := append(slices.Clone(ownVolumes), source)
	for c := range pod.all {
		if !c.ours() {
			continue
		}
		for dir, kind := range map[string]string{
			sidecarconfig.CredentialsDir: "emptyDir", apiTokenDir: "emptyDir", sidecarconfig.TokenDir: "projected",
		} {
			name := c.volumeAt(dir)
			if i := pod.volume(name); i >= 0 && pod.Spec.Volumes[i].kind() == kind && !mountedElsewhere(pod, name, dir) {
				added = append(added, name)
			}
		}
	}
	return added
}

// mountedElsewhere reports whether a container mounts the volume at another path.
func mountedElsewhere(pod *Pod, volume, dir string) bool {
	for c := range pod.all {
		if slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return m.Name == volume && path.Clean(m.MountPath) != dir }) {
			return true
		}
	}
	return false
}

// withoutParts returns the containers without the sidecar, without mounts of the added volumes, and
// without the variables of the injection.
func withoutParts(p *patch, at string, containers []Container, added []string, env []EnvVar) []Container {
	if containers == nil {
		return nil
	}
	left := slices.Clone(containers)
	for i := range left {
		c := &left[i]
		if c.ours() {
			continue
		}
		for j, m := range slices.Backward(c.VolumeMounts) {
			if slices.Contains(added, m.Name) {
				p.remove(at + pointer(i, "volumeMounts", j))
				c.VolumeMounts = slices.Delete(slices.Clone(c.VolumeMounts), j, j+1)
			}
		}
		for _, j := range slices.Backward(ownVariables(c.Env, env)) {
			p.remove(at + pointer(i, "env", j))
			c.Env = slices.Delete(slices.Clone(c.Env), j, j+1)
		}
	}
	for i := len(left) - 1; i >= 0; i-- {
		if left[i].ours() {
			p.remove(at + pointer(i))
			left = slices.Delete(left, i, i+1)
		}
	}
	return left
}

// ownVariables returns the indexes of the variables that injection added. They are consecutive, in
// the order of own, next to the variable with the token's path. A variable with the same value at
// another place belongs to the user.
func ownVariables(have, own []EnvVar) []int {
	var places []int
	for i := 0; i < len(have); i++ {
		if !slices.Contains(own, have[i]) {
			continue
		}
		end := i
		for end < len(have) && slices.Contains(own, have[end]) {
			end++
		}
		surely := func(v EnvVar) bool {
			return v == ownCredentials || v.Name == variableToken || v.Name == sidecarconfig.WriteURLVariable ||
				v == EnvVar{Name: variableConfigFile, Value: awsConfigFile}
		}
		if slices.ContainsFunc(have[i:end], surely) {
			for j := i; j < end; j++ {
				places = append(places, j)
			}
		}
		i = end
	}
	return places
}
