package plan

import (
	"strings"
	"testing"
)

// What others add to a role of this cluster is reported, and changes nothing of the plan.
func TestDrift(t *testing.T) {
	const attached = "arn:aws:iam::aws:policy/AdministratorAccess"
	for _, c := range []struct {
		name string
		add  func(*Role)
		want []string // parts of the findings, one for each
	}{
		{"nothing", func(*Role) {}, nil},
		{"a tag", func(r *Role) { r.Tags["team"] = "admins" }, []string{"has tags that the policy does not ask for, and other systems " +
			"may give it rights because of them: team; name them in trust.tags, or remove them"}},
		{"two tags", func(r *Role) { r.Tags["b"], r.Tags["a"] = "", "" }, []string{": a, b;"}},
		{"a tag of AWS's own", func(r *Role) { r.Tags["aws:cloudformation:stack-name"] = "x" }, nil},
		{"a tag of ours in another case", func(r *Role) {
			delete(r.Tags, TagCluster)
			r.Tags[strings.ToUpper(TagCluster)] = "dev-aks"
		}, nil},
		{"an attached policy", func(r *Role) { r.Further = []string{attached} }, []string{"has policies that sync did not write: " + attached}},
		{"an inline policy", func(r *Role) { r.Further = []string{"debug"} }, []string{"has policies that sync did not write: debug"}},
		{"a tag and a policy", func(r *Role) { r.Tags["team"], r.Further = "admins", []string{"debug"} }, []string{": team;", ": debug;"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			accounts := synced(t, hourOld("monitoring/prometheus")...)
			r := accounts[account].Roles[role]
			c.add(&r)
			accounts[account].Roles[role] = r
			p := Compute(input(t, base, accounts, hourOld("monitoring/prometheus")...))
			if len(p.Drift) != len(c.want) {
				t.Fatalf("got %v, want %d findings", p.Drift, len(c.want))
			}
			for i, want := range c.want {
				f := p.Drift[i]
				if !strings.Contains(f.Message, want) || f.About != r.ARN.String() || f.Account != account {
					t.Errorf("got %+v, want one with %q", f, want)
				}
				if !strings.Contains(p.String(), "\ndrift: "+f.About+": "+f.Message+"\n") {
					t.Errorf("it is not in the text:\n%s", p)
				}
			}
			if !p.InSync() {
				t.Errorf("changes %v, refusals %v: want none", calls(p), p.Refusals)
			}
		})
	}
}

// Permissions of an older version do not let sync list a role's policies.
func TestUnknownAdditions(t *testing.T) {
	accounts := synced(t, hourOld("monitoring/prometheus")...)
	r := accounts[account].Roles[role]
	r.FurtherProblem = "ListRolePolicies: AccessDenied: no"
	accounts[account].Roles[role] = r
	p := Compute(input(t, base, accounts, hourOld("monitoring/prometheus")...))
	if len(p.Drift) != 0 || len(p.Notes) != 1 || !strings.Contains(p.Notes[0].Message, "run bootstrap again: ListRolePolicies: AccessDenied") {
		t.Errorf("drift %v, notes %v", p.Drift, p.Notes)
	}
}
