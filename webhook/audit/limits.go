package audit

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/webhook/inject"
)

// without returns the quotas as if the pod had been deleted. It counts only native
// sidecars among the pod's init containers. If another one is large, the
// result shows too little space, and the pod is left as it is, which is safe.
func without(quotas []corev1.ResourceQuota, pod *Pod) []corev1.ResourceQuota {
	out := make([]corev1.ResourceQuota, len(quotas))
	for i := range quotas {
		out[i] = *quotas[i].DeepCopy()
		for key, used := range out[i].Status.Used {
			name, of := corev1.ResourceCPU, requested
			switch key {
			case corev1.ResourceCPU, corev1.ResourceRequestsCPU:
			case corev1.ResourceMemory, corev1.ResourceRequestsMemory:
				name = corev1.ResourceMemory
			case corev1.ResourceLimitsCPU:
				of = limited
			case corev1.ResourceLimitsMemory:
				name, of = corev1.ResourceMemory, limited
			default:
				continue
			}
			used.Sub(usage(pod, name, of))
			out[i].Status.Used[key] = used
		}
	}
	return out
}

func requested(r inject.Resources) corev1.ResourceList { return r.Requests }
func limited(r inject.Resources) corev1.ResourceList   { return r.Limits }

func usage(pod *Pod, name corev1.ResourceName, of func(inject.Resources) corev1.ResourceList) (total resource.Quantity) {
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy == string(corev1.ContainerRestartPolicyAlways) {
			total.Add(of(c.Resources)[name])
		}
	}
	for _, c := range pod.Spec.Containers {
		total.Add(of(c.Resources)[name])
	}
	return total
}
