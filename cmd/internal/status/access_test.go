package status

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

// Who only reads is told apart from who writes.
func TestAccessIsShown(t *testing.T) {
	for want, access := range map[string][]policy.Access{
		"central ":                {policy.AccessWrite},
		"central (query) ":        {policy.AccessQuery},
		"central (write, query) ": {policy.AccessWrite, policy.AccessQuery},
	} {
		r := Report{Destinations: []Destination{{Name: "central", Access: access, Roles: []Role{{State: Absent}}}}}
		if text := r.String(); !strings.Contains(text, "\n"+want) {
			t.Errorf("%v:\n%s", access, text)
		}
	}
}
