package inject

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The chart allows the auditor to reach every port that a sidecar can have.
func TestNetworkPolicyKnowsThePorts(t *testing.T) {
	text, err := os.ReadFile("../../charts/ampbridge/templates/networkpolicy.yaml")
	testkit.Must(t, err)
	list := "list"
	for _, port := range metricsPorts {
		list += fmt.Sprintf(" %d", port)
	}
	if !strings.Contains(string(text), list+" }}") {
		t.Errorf("the NetworkPolicy does not have %q", list)
	}
}
