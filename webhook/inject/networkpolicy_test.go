package inject

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The chart allows the auditor to reach every port that a sidecar can have.
func TestNetworkPolicyKnowsThePorts(t *testing.T) {
	text := testkit.ReadFile(t, "../../charts/ampbridge/templates/networkpolicy.yaml")
	list := "list"
	for _, port := range metricsPorts {
		list += fmt.Sprintf(" %d", port)
	}
	if !strings.Contains(text, list+" }}") {
		t.Errorf("the NetworkPolicy does not have %q", list)
	}
}
