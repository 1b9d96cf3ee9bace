package inject

import (
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// Workload returns what a pod belongs to: its controller, or the Deployment above the controller,
// and its shard.
func Workload(pod *Pod) policy.Workload {
	w := policy.Workload{Shard: pod.Metadata.Labels[policy.LabelShard]}
	if owner := pod.Metadata.Controller(); owner.Kind != "" {
		of := breaker.Of(pod.Metadata.Namespace, "", owner.Kind, owner.Name, pod.Metadata.Labels)
		w.Kind, w.Controller = of.Kind, of.Name
	}
	return w
}
