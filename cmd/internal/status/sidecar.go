package status

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
)

// sidecar returns the state of each destination that the pod's sidecar reports.
func (c *collector) sidecar(ctx context.Context, pod *corev1.Pod) (map[string]Sidecar, error) {
	status, err := kube.SidecarStatus(ctx, c.client.CoreV1(), pod)
	if err != nil {
		return nil, err
	}
	destinations := map[string]Sidecar{}
	for _, d := range status.Destinations {
		destinations[d.Name] = Sidecar{
			SessionValid: d.Valid, Expires: d.Expires, BlockServed: d.Served, GapSeconds: d.Gap(cmp.Or(status.Time, time.Now())).Seconds(),
		}
	}
	return destinations, nil
}
