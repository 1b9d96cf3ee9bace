package status

import (
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/audit"
)

// Pods of other programs: one has no sidecar that could be unavailable, and the samples of
// the other do not wait in a Prometheus.
func TestStateOfModes(t *testing.T) {
	identity := Pod{Finding: audit.Healthy, Ready: true, Destinations: []string{"central"}, Mode: policy.ModeIdentity}
	relay := Pod{Finding: audit.Healthy, Ready: true, Destinations: []string{"central"}, Mode: policy.ModeRelay,
		Sidecar: map[string]Sidecar{"central": {Delivery: sidecarconfig.DeliveryRelay}}}
	for _, row := range []struct {
		pod            Pod
		state, display string
	}{
		{identity, "healthy, the program signs itself", "identity"},
		{relay, "healthy, no session, samples wait in the program", "relay"},
	} {
		if got := row.pod.state("central", time.Now()); got != row.state {
			t.Errorf("%q, want %q", got, row.state)
		}
		if got := row.pod.delivery("central"); !strings.HasPrefix(got, row.display) {
			t.Errorf("%q, want %q", got, row.display)
		}
	}
}
