package plan

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// withReaders is base with a destination that is queried, and one that is both.
var withReaders = strings.NewReplacer(
	"grants:\n", `- {name: reader, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001", access: [query]}
- {name: both, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0002", access: [write, query]}
grants:
- {namespaces: [grafana], serviceAccounts: [grafana], destinations: [reader], mode: identity}
- {namespaces: [ruler], serviceAccounts: [ruler], destinations: [both]}
`).Replace(base)

// permissionsOf returns the permission documents of an account, by destination.
func permissionsOf(a Account) map[string]string {
	list := map[string]string{}
	for _, r := range a.all() {
		list[r.Tags[TagDestination]] = r.Permissions
	}
	return list
}

// If the boundary of an earlier bootstrap allows no query, roles that query wait, and roles that
// write stay unchanged.
func TestReadersWaitForTheBoundary(t *testing.T) {
	for _, scope := range []string{policy.RoleScopeDestination, policy.RoleScopeServiceAccount} {
		t.Run(scope, func(t *testing.T) { readersWait(t, scope) })
	}
}

func readersWait(t *testing.T, scope string) {
	scoped := func(text string) string {
		return strings.Replace(text, "trust: {", "trust: {roleScope: "+scope+", ", 1)
	}
	in := input(t, scoped(base), nil, hourOld("monitoring/prometheus", "grafana/grafana", "ruler/ruler")...)
	in.Accounts = applyPlan(Compute(in), nil)
	writer := in.Accounts[account]

	in.Policy = input(t, scoped(withReaders), nil).Policy
	in.Unbounded = map[string]string{"reader": "it does not allow aps:QueryMetrics", "both": "it does not allow aps:QueryMetrics"}
	waiting := Compute(in)
	for i, want := range []string{
		"destinations[1].access has query, and the permissions boundary of account 111122223333 does not allow that: " +
			"it does not allow " +
			"aps:QueryMetrics. So no new service account is trusted for destination reader; run `ampbridge bootstrap " +
			"--policy FILE --account " +
			"111122223333 --apply` again, as an administrator of the account. Writing is not affected",
		"destinations[2].access has query, and the permissions boundary of account 111122223333 does not allow that: " +
			"it does not allow " +
			"aps:QueryMetrics. So the roles of destination both may write to it, and not query it; run `ampbridge " +
			"bootstrap --policy FILE " +
			"--account 111122223333 --apply` again, as an administrator of the account. Writing is not affected",
	} {
		if len(waiting.Refusals) != 2 || waiting.Refusals[i].Message != want {
			t.Errorf("refusals %q, want number %d to be %q", waiting.Refusals, i, want)
		}
	}
	states := map[string]State{}
	for _, s := range waiting.SubjectStatuses {
		states[s.Subject.ServiceAccount] = s.State
	}
	testkit.Equal(t, "states", map[string]State{"prometheus": Trusted, "grafana": BoundaryOutdated, "ruler": Trusted}, states)
	in.Accounts = applyPlan(waiting, in.Accounts)
	write := func(workspace string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite",` +
			`"Resource":"arn:aws:aps:eu-west-1:111122223333:workspace/` + workspace + `"}]}`
	}
	testkit.Equal(t, "while the boundary is an old one", map[string]string{"central": write("ws-0001"), "both": write("ws-0002")},
		permissionsOf(in.Accounts[account]))
	for name, r := range writer.Roles {
		testkit.Equal(t, "the writer's role", r, in.Accounts[account].Roles[name])
	}
	if again := Compute(in); len(again.Changes) > 0 {
		t.Errorf("the next plan is not empty:\n%s", again)
	}

	in.Unbounded = nil
	in.Accounts = applyPlan(Compute(in), in.Accounts)
	documents := permissionsOf(in.Accounts[account])
	for name, want := range map[string][2]bool{"central": {true, false}, "reader": {false, true}, "both": {true, true}} {
		if got := [2]bool{strings.Contains(documents[name], "aps:RemoteWrite"),
			strings.Contains(documents[name], "aps:QueryMetrics")}; got != want {
			t.Errorf("%s writes and queries: %v, want %v", name, got, want)
		}
	}
	if again := Compute(in); len(again.Changes)+len(again.Refusals) > 0 {
		t.Errorf("the next plan is not empty:\n%s", again)
	}

	// If the boundary cannot be read, roles keep what they have.
	in.Unbounded = map[string]string{"reader": "it cannot be read", "both": "it cannot be read"}
	if again := Compute(in); len(again.Changes) > 0 {
		t.Errorf("a boundary that cannot be read changes roles:\n%s", again)
	}
}

// A destination without write access any more loses the right to write at once, whatever the
// boundary allows.
func TestAccessShrinksAtOnce(t *testing.T) {
	in := input(t, base, nil, hourOld("monitoring/prometheus")...)
	in.Accounts = applyPlan(Compute(in), nil)
	in.Policy = policytest.Parse(t, strings.NewReplacer(
		`ws-0001"`, `ws-0001", access: [query]`, "[central]}", "[central], mode: identity}").Replace(base))
	in.Unbounded = map[string]string{"central": "it does not allow it"}
	made := Compute(in)
	wantCalls(t, made, "PutRolePolicy")
	in.Accounts = applyPlan(made, in.Accounts)
	if document := in.Accounts[account].Roles[role].Permissions; strings.Contains(document, "RemoteWrite") {
		t.Errorf("it may still write: %s", document)
	}
}
