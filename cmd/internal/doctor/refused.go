package doctor

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// fitSidecar returns the fix for a policy that refuses pods because of the sidecar.
func fitSidecar() check.Fix {
	return check.NewFix("let the sidecar meet that rule (sidecar.resources, .volumeSizeLimit, .securityContext and .image of the " +
		"policy), or exempt the container " + sidecarconfig.ContainerName + " and the volumes ampbridge-* from it; " +
		"the webhook applies the changed policy to the next pod")
}

// openFor returns the circuit breaker's entry for the pod's workload, if the workload's pods
// were refused; false: there is none, or it cannot be read.
func (x *runner) openFor(ctx context.Context, pod *corev1.Pod) (breaker.Entry, bool) {
	state, err := store.Read(ctx, x.cluster.client.CoreV1().ConfigMaps(x.System))
	if err != nil {
		return breaker.Entry{}, false
	}
	var kind, name string
	if owner := metav1.GetControllerOf(pod); owner != nil {
		kind, name = owner.Kind, owner.Name
	}
	w := breaker.Of(pod.Namespace, pod.Name, kind, name, pod.Labels)
	for _, e := range state.Entries() {
		if e.WasRefused() && (e.Workload == w || e.Workload == breaker.All(pod.Namespace)) {
			return e, true
		}
	}
	return breaker.Entry{}, false
}

// refusalAge is the age up to which an event is current. Controllers retry after 1000 s at most.
const refusalAge = 20 * time.Minute

// refusedPods names a controller of the namespace that cannot create its pods, and what
// refuses them; empty: there is none, or the events cannot be read. The events name no
// service account, so the pods may belong to another one.
func (x *runner) refusedPods(ctx context.Context, namespace string) string {
	list, err := x.cluster.client.CoreV1().Events(namespace).List(ctx,
		metav1.ListOptions{FieldSelector: "reason=FailedCreate", Limit: pageSize})
	if err != nil {
		return ""
	}
	for _, e := range list.Items {
		by, text, plausible := audit.Blame(e.Message)
		if plausible && x.Now().Sub(e.LastTimestamp.Time) < refusalAge {
			return fmt.Sprintf(", and %s %s of the namespace cannot create its pods: %s refuses them: %s",
				e.InvolvedObject.Kind, e.InvolvedObject.Name, by, text)
		}
	}
	return ""
}
