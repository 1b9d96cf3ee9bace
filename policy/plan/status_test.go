package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
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

	for _, c := range []struct {
		name string
		in   Input
		want []string // state, * where the plan brings it about, and subject
	}{
		{"new", Input{Policy: policytest.Parse(t, base), ServiceAccounts: []ServiceAccount{old}}, []string{"Trusted* team-a/prometheus"}},
		{"as before, and a new one",
			Input{Policy: policytest.Parse(t, base), Accounts: synced(t, old), ServiceAccounts: []ServiceAccount{old, late}},
			[]string{"Trusted team-a/prometheus", "Trusted* team-a/b-prometheus"}},
		{"no place", Input{Policy: policytest.Parse(t, capped), ServiceAccounts: []ServiceAccount{old, late}}, []string{"CapReached " +
			"team-a/b-prometheus", "Trusted* team-a/prometheus"}},
		{"no room", Input{Policy: policytest.Parse(t, base), TrustQuota: 500, ServiceAccounts: []ServiceAccount{old, late}},
			[]string{"QuotaExceeded team-a/b-prometheus", "QuotaExceeded team-a/prometheus"}},
		{"asked for without a grant", Input{Policy: policytest.Parse(t, base), ServiceAccounts: []ServiceAccount{
			serviceAccount("default/asks", 0, "ampbridge.io/inject", "true"), serviceAccount("default/default", 0),
		}}, []string{"NotGranted default/asks"}},
		{"a role of others", Input{Policy: policytest.Parse(t, base), Accounts: foreign,
			ServiceAccounts: []ServiceAccount{old, serviceAccount("default/default", 0)}}, []string{"Refused team-a/prometheus"}},
		{"a provider of others: who is trusted stays so",
			Input{Policy: policytest.Parse(t, base), Accounts: provider, ServiceAccounts: []ServiceAccount{old, late}},
			[]string{"Refused team-a/b-prometheus", "Trusted team-a/prometheus"}},
		{"an account that cannot be read says nothing of anybody",
			Input{Policy: policytest.Parse(t, base), Accounts: map[string]Account{account: {Problem: "denied"}},
				ServiceAccounts: []ServiceAccount{old}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.in.Issuer = issuer
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
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("subject statuses (-want +got):\n%s", diff)
			}
		})
	}
}
