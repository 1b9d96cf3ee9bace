package kubelet

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// unsupported returns an error that names everything that the pod needs and its containers would not get
// here. It is better not to run a pod than to run it differently.
func unsupported(pod *corev1.Pod) error {
	var errs []error
	refuse := func(asked bool, format string, args ...any) {
		if asked {
			errs = append(errs, fmt.Errorf(format+": test/kubelet does not support it", args...))
		}
	}
	s := pod.Spec
	refuse(s.HostPID, "spec.hostPID")
	refuse(s.HostIPC, "spec.hostIPC")
	refuse(isTrue(s.ShareProcessNamespace), "spec.shareProcessNamespace")
	refuse(s.DNSConfig != nil, "spec.dnsConfig")
	refuse(s.OS != nil && s.OS.Name != corev1.Linux, "spec.os")
	refuse(s.ActiveDeadlineSeconds != nil, "spec.activeDeadlineSeconds")
	refuse(len(s.SchedulingGates) > 0, "spec.schedulingGates")
	refuse(len(s.ReadinessGates) > 0, "spec.readinessGates")
	refuse(len(s.ResourceClaims) > 0, "spec.resourceClaims")
	refuse(len(s.EphemeralContainers) > 0, "spec.ephemeralContainers")

	volumes := map[string]bool{}
	for i, v := range s.Volumes {
		volumes[v.Name] = true
		src := v.VolumeSource
		known := src.ConfigMap != nil || src.Secret != nil || src.DownwardAPI != nil || src.EmptyDir != nil ||
			src.PersistentVolumeClaim != nil
		if src.Projected != nil {
			known = true
			for j, p := range src.Projected.Sources {
				refuse(p.ConfigMap == nil && p.Secret == nil && p.DownwardAPI == nil && p.ServiceAccountToken == nil,
					"spec.volumes[%d].projected.sources[%d] (%s): a source of this kind", i, j, v.Name)
			}
		}
		refuse(!known, "spec.volumes[%d] (%s): a volume of this kind", i, v.Name)
	}
	for list, containers := range map[string][]corev1.Container{"initContainers": s.InitContainers, "containers": s.Containers} {
		for i, c := range containers {
			at := fmt.Sprintf("spec.%s[%d] (%s)", list, i, c.Name)
			always := c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
			refuse(c.RestartPolicy != nil && (list == "containers" || !always), "%s.restartPolicy", at)
			refuse(len(c.RestartPolicyRules) > 0, "%s.restartPolicyRules", at)
			refuse(c.Lifecycle != nil, "%s.lifecycle", at)
			refuse(len(c.VolumeDevices) > 0, "%s.volumeDevices", at)
			if sc := c.SecurityContext; sc != nil {
				refuse(isTrue(sc.Privileged), "%s.securityContext.privileged", at)
				refuse(sc.Capabilities != nil && len(sc.Capabilities.Add) > 0, "%s.securityContext.capabilities.add", at)
				refuse(sc.ProcMount != nil && *sc.ProcMount != corev1.DefaultProcMount, "%s.securityContext.procMount", at)
			}
			for name, p := range map[string]*corev1.Probe{"startupProbe": c.StartupProbe, "readinessProbe": c.ReadinessProbe,
				"livenessProbe": c.LivenessProbe} {
				refuse(p != nil && p.GRPC != nil, "%s.%s.grpc", at, name)
			}
			for _, e := range c.Env {
				refuse(e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil, "%s.env %s: fileKeyRef", at, e.Name)
			}
			for _, m := range c.VolumeMounts {
				refuse(
					m.MountPropagation != nil && *m.MountPropagation != corev1.MountPropagationNone,
					"%s.volumeMounts %s: mountPropagation",
					at,
					m.MountPath,
				)
				if !volumes[m.Name] {
					errs = append(errs, fmt.Errorf("%s.volumeMounts %s: the pod has no volume %q", at, m.MountPath, m.Name))
				}
			}
		}
	}
	return errors.Join(errs...)
}
