package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestSubjectStatuses(t *testing.T) {
	old, late := serviceAccount("team-a/prometheus", 2*time.Hour), serviceAccount("team-a/b-prometheus", time.Hour)
	capped := strings.Replace(base, "destinations: [central]}", "destinations: [central], maxSubjectsPerNamespace: 1}", 1)
	foreign := map[string]Account{
		account: {
			Roles: map[string]Role{role: {ARN: policy.ARN{Partition: "aws", Service: "iam", Account: account, Resource: "role/" + role}}},
		},
	}
	provider := synced(t, old)
	provider[account].Provider.Tags[TagOwner] = "0123"
	cramped := input(t, base, nil, old, late)
	cramped.TrustQuota = 500

	for _, c := range []struct {
		name string
		in   Input
		want []string // state, * where the plan brings it about, and subject
	}{
		{"new", input(t, base, nil, old), []string{"Trusted* team-a/prometheus"}},
		{"as before, and a new one",
			input(t, base, synced(t, old), old, late),
			[]string{"Trusted team-a/prometheus", "Trusted* team-a/b-prometheus"}},
		{"no place", input(t, capped, nil, old, late), []string{"CapReached team-a/b-prometheus", "Trusted* team-a/prometheus"}},
		{"no room", cramped,
			[]string{"QuotaExceeded team-a/b-prometheus", "QuotaExceeded team-a/prometheus"}},
		{"asked for without a grant", input(t, base, nil,
			serviceAccount("default/asks", 0, "ampbridge.io/inject", "true"), serviceAccount("default/default", 0),
		), []string{"NotGranted default/asks"}},
		{"a role of others", input(t, base, foreign, old, serviceAccount("default/default", 0)), []string{"Refused team-a/prometheus"}},
		{"a provider of others: who is trusted stays so",
			input(t, base, provider, old, late),
			[]string{"Refused team-a/b-prometheus", "Trusted team-a/prometheus"}},
		{"an account that cannot be read says nothing of anybody",
			input(t, base, map[string]Account{account: {Problem: "denied"}}, old), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range Compute(c.in).SubjectStatuses {
				changes := ""
				if s.Changes {
					changes = "*"
				}
				if s.Message == "" {
					t.Errorf("%s %s has no message", s.State, s.Subject)
				}
				got = append(got, string(s.State)+changes+" "+s.Subject.Namespace+"/"+s.Subject.ServiceAccount)
			}
			slices.Sort(got)
			testkit.Equal(t, "subject statuses", c.want, got)
		})
	}
}
