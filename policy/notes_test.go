package policy_test

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

// TestNotesOfGrants checks the notes about grants that are allowed and often a mistake.
func TestNotesOfGrants(t *testing.T) {
	head := strings.NewReplacer("REGION", "eu-west-1", "PARTITION", "aws").Replace(inRegion)
	for name, c := range map[string]struct {
		grants []string
		want   []string // the beginning and the end of each note
	}{
		"a group that several clusters may have": {
			[]string{"namespaces: [a], serviceAccounts: [p], ha: k8s"},
			[]string{"grants[0].ha: if another cluster", "such as dev-k8s"},
		},
		"a group with the cluster's name": {[]string{"namespaces: [a], serviceAccounts: [p], ha: dev-eu"}, nil},
		"two groups of one service account": {
			[]string{"namespaces: [a], serviceAccounts: [p], ha: dev", "namespaces: ['*'], serviceAccounts: [q, p], ha: dev-2"},
			[]string{"grants[1].ha: grants[0] covers service account p of namespace a too", "or remove one"},
		},
		"two groups, and the pattern is first": {
			[]string{"namespaces: [a], serviceAccounts: ['*'], ha: dev", "namespaces: [a, b], serviceAccounts: [p], ha: dev-2"},
			[]string{"grants[1].ha: grants[0] covers service account p of namespace a too", "or remove one"},
		},
		"two groups of different service accounts": {
			[]string{"namespaces: [a], serviceAccounts: [p], ha: dev", "namespaces: [a], serviceAccounts: [q], ha: dev-2"}, nil,
		},
		"the same grant again": {
			[]string{"namespaces: [a], serviceAccounts: [p]", "namespaces: [b], serviceAccounts: [p]", "namespaces: [a], serviceAccounts: [p]"},
			[]string{"grants[2]: is the same as grants[0]", "remove one of the two"},
		},
		"two grants that add up": {[]string{"namespaces: [a], serviceAccounts: [p]", "namespaces: [a], serviceAccounts: ['*']"}, nil},
	} {
		text := head + "grants:\n"
		for _, g := range c.grants {
			text += "- {" + g + ", destinations: [central]}\n"
		}
		p, err := policy.Parse([]byte(text))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		notes := p.Notes().Error()
		if c.want == nil && notes != "" || c.want != nil && (!strings.HasPrefix(notes, c.want[0]) || !strings.HasSuffix(notes, c.want[1])) {
			t.Errorf("%s: got %q, want %q", name, notes, c.want)
		}
	}
}
