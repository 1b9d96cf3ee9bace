package status

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// sidecar adds what the pod's sidecar reports about each destination.
func (c *collector) sidecar(ctx context.Context, pod *corev1.Pod, seen *Pod, carried inject.Injected, pinned string) {
	status, err := kube.SidecarStatus(ctx, c.client.CoreV1(), pod)
	if err != nil {
		seen.SidecarUnavailable = err.Error()
		if carried.Version != sidecarconfig.VersionSigV4 && pinned != "" && pinned == kube.SidecarImage(pod) {
			seen.Versions = "perhaps older than the webhook: remove sidecar.image from the policy, and restart the workload"
		}
		return
	}
	const restart = ": remove sidecar.image from the policy if it is set, and restart the workload"
	switch decided := len(carried.Delivery) > 0; {
	case status.Sidecar == "" && decided:
		seen.Versions = "the sidecar is older than the webhook" + restart
	case status.Sidecar == "":
		seen.Versions = "injected by an earlier version" + restart
	case !decided:
		seen.Versions = "the webhook was older than the sidecar" + restart
	}
	now := cmp.Or(status.Time, time.Now())
	seen.Sidecar = map[string]Sidecar{}
	for _, d := range status.Destinations {
		s := Sidecar{
			Delivery: d.Delivery, Moved: check.Plain(d.Moved), NotTaken: d.NotTaken,
			SessionValid: d.Valid, Expires: d.Expires, BlockServed: d.Served, GapSeconds: d.Gap(now).Seconds(),
		}
		if check.Recent(d.Relay, now) {
			s.Refused = check.RefusedRelay(d.Relay).Message
		}
		seen.Sidecar[d.Name] = s
	}
}
