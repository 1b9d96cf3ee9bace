package plan

import (
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// each gives every service account a role of its own.
var each = strings.Replace(base, "trust: {", "trust: {roleScope: serviceAccount, ", 1)

// oneEach returns one service account of each of three namespaces.
func oneEach() []ServiceAccount {
	return hourOld("monitoring/prometheus", "team-a/prometheus", "team-b/prometheus")
}

// whoTrusts returns the subjects that each role of an account trusts.
func whoTrusts(t *testing.T, a Account) map[string]string {
	t.Helper()
	roles := map[string]string{}
	for _, r := range a.all() {
		roles[r.ARN.RoleName()] = strings.Join(trustedBy(t, r.Trust), " ")
	}
	return roles
}

// elsewhere returns the account as sync observes it with the policy's scope: roles that the target
// does not name are orphans.
func elsewhere(p *policy.Policy, a Account) Account {
	if p.Trust.RoleScope == policy.RoleScopeServiceAccount {
		return a
	}
	b := a
	b.Roles, b.Orphans = map[string]Role{}, nil
	for _, r := range a.all() {
		name := r.ARN.RoleName()
		if slices.ContainsFunc(p.Destinations, func(d policy.Destination) bool { return p.Role(d).RoleName() == name }) {
			b.Roles[name] = r
		} else {
			b.Orphans = append(b.Orphans, r)
		}
	}
	return b
}

func TestARoleForEachServiceAccount(t *testing.T) {
	in := input(t, each, nil, hourOld("monitoring/prometheus", "team-a/prometheus", "team-a/default")...)
	targets := in.Targets()
	if want := []string{
		"ampbridge.dev-aks.central.monitoring.prometheus",
		"ampbridge.dev-aks.central.team-a.prometheus",
	}; len(targets) != 1 || !targets[0].All ||
		!slices.Equal(targets[0].Roles, want) {
		t.Errorf("targets %+v", targets)
	}
	first := Compute(in)
	wantCalls(t, first, "CreateOpenIDConnectProvider", "CreateRole", "PutRolePolicy", "CreateRole", "PutRolePolicy")
	role := first.Changes[1]
	if role.Tags[TagNamespace] != "monitoring" || role.Tags[TagServiceAccount] != "prometheus" || role.Tags[TagDestination] != "central" ||
		role.Boundary.IsZero() {
		t.Errorf("role %+v", role)
	}
	in.Accounts = applyPlan(first, nil)
	testkit.Equal(t, "trusted by role", map[string]string{
		"ampbridge.dev-aks.central.monitoring.prometheus": "monitoring/prometheus",
		"ampbridge.dev-aks.central.team-a.prometheus":     "team-a/prometheus",
	}, whoTrusts(t, in.Accounts[account]))
	if again := Compute(in); !again.InSync() {
		t.Errorf("the plan after the plan:\n%s", again)
	}

	// One service account is deleted, one opts out, and somebody adds a foreign subject to a role.
	in.ServiceAccounts = []ServiceAccount{serviceAccount("team-a/prometheus", time.Hour, policy.AnnotationInject, "false")}
	r := in.Accounts[account].Roles["ampbridge.dev-aks.central.monitoring.prometheus"]
	r.Trust = strings.Replace(
		r.Trust,
		`:sub":"system:serviceaccount:monitoring:prometheus"`,
		`:sub":["system:serviceaccount:monitoring:prometheus","system:serviceaccount:team-a:prometheus"]`,
		1,
	)
	in.Accounts[account].Roles[r.ARN.RoleName()] = r
	second := Compute(in)
	in.Accounts = applyPlan(second, in.Accounts)
	testkit.Equal(t, "trusted by role after\n"+second.String(), map[string]string{
		"ampbridge.dev-aks.central.monitoring.prometheus": "monitoring/prometheus", "ampbridge.dev-aks.central.team-a.prometheus": "",
	}, whoTrusts(t, in.Accounts[account]))
	if again := Compute(in); !again.InSync() {
		t.Errorf("the plan after the second plan:\n%s", again)
	}

	// A role of another owner blocks one subject, and no other.
	foreign := r
	foreign.Tags = nil
	third := Compute(input(t, each, map[string]Account{account: {Roles: map[string]Role{r.ARN.RoleName(): foreign}}},
		hourOld("monitoring/prometheus", "team-a/prometheus")...))
	if len(third.Refusals) != 1 || !strings.Contains(third.Refusals[0].Message, "was not created by sync") || len(third.Changes) != 3 {
		t.Errorf("a foreign role:\n%s", third)
	}
	for _, s := range third.SubjectStatuses {
		if want := map[string]State{"monitoring": Refused, "team-a": Trusted}[s.Subject.Namespace]; s.State != want {
			t.Errorf("%s: %s, want %s", s.Subject, s.State, want)
		}
	}
}

// When the scope changes, no subject is without a role in between, and a subject that lost its
// grant gets no new role.
func TestTheScopeChanges(t *testing.T) {
	for _, c := range []struct{ from, to string }{{base, each}, {each, base}} {
		to := input(t, strings.Replace(c.to, `"team-*"`, `"team-a"`, 1), nil).Policy
		in := input(t, c.from, nil, oneEach()...)
		in.Accounts = applyPlan(Compute(in), nil)
		trusted := func(name string) (n int) {
			for _, subjects := range whoTrusts(t, in.Accounts[account]) {
				n += strings.Count(" "+subjects+" ", " "+name+" ")
			}
			return n
		}
		in.Policy, in.Accounts[account] = to, elsewhere(to, in.Accounts[account])
		in.ServiceAccounts = in.ServiceAccounts[:1] // team-a's is away for a moment
		all := Compute(in)
		// Sync is killed after any number of changes.
		before := in.Accounts
		for n := range len(all.Changes) + 1 {
			some := all
			some.Changes = all.Changes[:n]
			in.Accounts = applyPlan(some, before)
			in.Accounts[account] = elsewhere(to, in.Accounts[account])
			for _, name := range []string{"monitoring/prometheus", "team-a/prometheus"} {
				if trusted(name) == 0 {
					t.Errorf("after %d of %d changes nobody trusts %s:\n%s", n, len(all.Changes), name, all)
				}
			}
			if n > 1 && trusted("team-b/prometheus") > 0 {
				t.Errorf("after %d changes a subject without a grant is trusted", n)
			}
			for range 3 { // the next runs go on from there
				in.Accounts = applyPlan(Compute(in), in.Accounts)
				in.Accounts[account] = elsewhere(to, in.Accounts[account])
			}
			if again := Compute(
				in,
			); !again.InSync() || trusted("monitoring/prometheus") != 1 || trusted("team-a/prometheus") != 1 ||
				trusted("team-b/prometheus") != 0 {
				t.Errorf("in the end: %v\n%s", whoTrusts(t, in.Accounts[account]), again)
			}
		}
		if last := all.Changes[len(all.Changes)-1]; !last.Last || last.Call != UpdateTrust {
			t.Errorf("the old roles are not closed last:\n%s", all)
		}

		// If something is refused, the old roles stay open.
		in.Accounts = before
		in.Accounts[account] = Account{
			Roles:    before[account].Roles,
			Orphans:  before[account].Orphans,
			Headroom: &Headroom{},
			Provider: before[account].Provider,
		}
		refused := Compute(in)
		if slices.ContainsFunc(refused.Changes, func(c Change) bool { return c.Last }) || len(refused.Refusals) == 0 {
			t.Errorf("no room:\n%s", refused)
		}
		in.Accounts, in.Missing = before, map[policy.ARN]bool{to.Destinations[0].Workspace.ARN: true}
		in.Accounts[account] = Account{Roles: before[account].Roles, Orphans: before[account].Orphans, Provider: before[account].Provider}
		if missing := Compute(in); slices.ContainsFunc(missing.Changes, func(c Change) bool { return c.Last }) ||
			len(missing.Refusals) == 0 {
			t.Errorf("no workspace:\n%s", missing)
		}
	}
}

// If a trust document is too short for the subjects of all former roles, the other subjects keep
// their roles.
func TestTheScopeChangesToADocumentThatIsTooShort(t *testing.T) {
	var all []ServiceAccount
	for i := range 60 {
		all = append(all, serviceAccount(fmt.Sprintf("team-%02d/prometheus", i), time.Duration(i)*time.Hour))
	}
	in := input(t, each, nil, all...)
	in.Accounts = applyPlan(Compute(in), nil)
	in.Policy = input(t, base, nil).Policy
	in.Accounts[account] = elsewhere(in.Policy, in.Accounts[account])
	p := Compute(in)
	if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, "roleScope: serviceAccount") {
		t.Fatalf("refusals: %v", p.Refusals)
	}
	after := whoTrusts(t, applyPlan(p, in.Accounts)[account])
	for _, sa := range all {
		name, found := sa.Namespace+"/"+sa.Name, false
		for _, subjects := range after {
			found = found || slices.Contains(strings.Fields(subjects), name)
		}
		if !found {
			t.Errorf("%s is trusted no more", name)
		}
	}
}

func TestPruneARoleOfItsOwn(t *testing.T) {
	in := input(t, each, nil, oneEach()...)
	in.Accounts = applyPlan(Compute(in), nil)
	in.ServiceAccounts = in.ServiceAccounts[:2]
	memory := TrackAbsence(AbsenceState{}, in)
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{time.Hour - time.Second, "team-b/prometheus"}, {time.Hour, ""}} {
		in.Now = noon.Add(c.after)
		in.Absence = TrackAbsence(memory, in)
		if got := whoTrusts(t, applyPlan(Compute(in), in.Accounts)[account])["ampbridge.dev-aks.central.team-b.prometheus"]; got != c.want {
			t.Errorf("after %s: trusts %q, want %q", c.after, got, c.want)
		}
	}
	in.ServiceAccounts = in.ServiceAccounts[:1]
	in.Absence.Missed[subject("team-a/prometheus")] = noon
	if p := Compute(in); len(p.Changes) > 0 || len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, "2 of 3") {
		t.Errorf("more than half:\n%s", p)
	}
}

func TestRoomForRoles(t *testing.T) {
	var all []ServiceAccount
	for i := range 5 {
		all = append(all, serviceAccount(fmt.Sprintf("team-%d/prometheus", i), time.Duration(i)*time.Hour))
	}
	in := input(t, each, map[string]Account{account: {Headroom: &Headroom{Roles: 2, Providers: 1}}}, all...)
	p := Compute(in)
	made := whoTrusts(t, applyPlan(p, in.Accounts)[account])
	if want := []string{
		"ampbridge.dev-aks.central.team-3.prometheus",
		"ampbridge.dev-aks.central.team-4.prometheus",
	}; !slices.Equal(
		slices.Sorted(maps.Keys(made)),
		want,
	) {
		t.Errorf("made %v, want the oldest two", made)
	}
	if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, "Roles per account") ||
		!strings.Contains(p.Refusals[0].Message, "team-0:prometheus") {
		t.Errorf("refusals %v", p.Refusals)
	}

	in = input(t, base, map[string]Account{account: {Headroom: &Headroom{Providers: 1}}}, all...)
	if p := Compute(in); len(p.Changes) > 0 || len(p.Refusals) != 1 {
		t.Errorf("no room for the destination's role:\n%s", p)
	}
	in.Accounts = map[string]Account{account: {Headroom: &Headroom{Roles: 1}}}
	p = Compute(in)
	if len(p.Changes) > 0 || len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, "--provider-quota") {
		t.Errorf("no room for the provider:\n%s", p)
	}
	if i := slices.IndexFunc(p.SubjectStatuses, func(s SubjectStatus) bool { return s.State == Trusted }); i >= 0 {
		t.Errorf("promised %+v", p.SubjectStatuses[i])
	}
}

// A missing workspace gets no role, and no subject loses its trust.
func TestMissingWorkspace(t *testing.T) {
	in := input(t, base, nil, hourOld("monitoring/prometheus")...)
	in.Missing = map[policy.ARN]bool{in.Policy.Destinations[0].Workspace.ARN: true}
	first := Compute(in)
	if len(first.Changes) > 0 || len(first.Refusals) != 1 ||
		!strings.Contains(first.Refusals[0].Message, "destinations[0].workspace does not exist") ||
		len(first.SubjectStatuses) != 1 ||
		first.SubjectStatuses[0].State != WorkspaceMissing {
		t.Errorf("from nothing:\n%s%v", first, first.SubjectStatuses)
	}
	in.Accounts = synced(t, hourOld("monitoring/prometheus", "team-a/prometheus")...)
	r := in.Accounts[account].Roles[role]
	r.Permissions = strings.Replace(r.Permissions, "ws-0001", "ws-0000", 1)
	in.Accounts[account].Roles[role] = r
	in.ServiceAccounts = append(
		in.ServiceAccounts,
		serviceAccount("team-new/prometheus", time.Hour),
		serviceAccount("team-a/prometheus", time.Hour, policy.AnnotationInject, "false"),
	)
	second := Compute(in)
	wantCalls(t, second, "UpdateAssumeRolePolicy") // what the role may do stays
	if got := trusts(t, applyPlan(second, in.Accounts)); !slices.Equal(got, []string{"monitoring/prometheus"}) {
		t.Errorf("trusted: %v", got)
	}
}

// After any sequence of changes both scopes give the same trust: to every granted subject that was
// trusted or is seen, and to no other subject.
func TestScopesComeToTheSame(t *testing.T) {
	random := rand.New(rand.NewSource(2))
	names, namespaces := []string{"prometheus", "a-prometheus", "default"}, []string{"monitoring", "team-a", "team-b", "other"}
	for i := range 500 {
		var accounts map[string]Account
		want := map[string]bool{}
		for step := range 4 {
			in := input(t, []string{base, each}[random.Intn(2)], accounts)
			in.TrustQuota = 1 << 20
			for _, ns := range namespaces {
				for _, sa := range names {
					if random.Intn(2) == 0 {
						in.ServiceAccounts = append(in.ServiceAccounts, serviceAccount(ns+"/"+sa, time.Hour))
						if _, granted := in.Policy.Entitled(policy.Subject{Namespace: ns, ServiceAccount: sa}); granted {
							want[ns+"/"+sa] = true
						}
					}
				}
			}
			if a, found := accounts[account]; found {
				accounts[account] = elsewhere(in.Policy, a)
			}
			accounts = applyPlan(Compute(in), accounts)
			got := map[string]bool{}
			for _, subjects := range whoTrusts(t, accounts[account]) {
				for name := range strings.FieldsSeq(subjects) {
					if got[name] {
						t.Fatalf("run %d, step %d: two roles trust %s", i, step, name)
					}
					got[name] = true
				}
			}
			if !maps.Equal(want, got) {
				t.Fatalf("run %d, step %d: trusted %v, want %v", i, step, got, want)
			}
			accounts[account] = elsewhere(in.Policy, accounts[account])
			in.Accounts = accounts
			if again := Compute(in); !again.InSync() {
				t.Fatalf("run %d, step %d: the plan after the plan:\n%s", i, step, again)
			}
		}
	}
}
