package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestPlansAsPeopleAndProgramsReadThem(t *testing.T) {
	several := `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev-aks}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
- {name: china, workspace: "arn:aws-cn:aps:cn-north-1:444455556666:workspace/ws-0002",
  assumeRole: "arn:aws-cn:iam::777788889999:role/writer"}
- {name: own, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0003", role: "arn:aws:iam::111122223333:role/admins-own"}
- {name: idle, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0004"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus-k8s], destinations: [central, china, own]}
- {namespaces: ["team-*"], serviceAccounts: ["*"], destinations: [central], maxSubjectsPerNamespace: 1}
- {namespaces: [later], serviceAccounts: [prometheus], destinations: [idle]}
session: {duration: 30m}
trust: {permissionsBoundary: "arn:aws:iam::999999999999:policy/ampbridge/boundary"}
`
	drifted := func(t *testing.T) map[string]Account {
		accounts := synced(t, hourOld("monitoring/prometheus")...)
		r := accounts[account].Roles[role]
		r.Trust = strings.Replace(r.Trust, `"Statement":[`, `"Statement":[{"Effect":"Allow","Principal":"*","Action":"sts:AssumeRole"},`, 1)
		r.Permissions, r.Boundary, r.MaxSession, r.Tags[TagDestination] = "", "", time.Hour, "other"
		accounts[account].Roles[role] = r
		accounts[account].Provider.Audiences = []string{"api://AzureADTokenExchange"}
		delete(accounts[account].Provider.Tags, TagManagedBy)
		return accounts
	}
	for _, c := range []struct {
		name string
		in   Input
	}{
		{"create", input(t, several, nil,
			serviceAccount("team-a/new", time.Hour), serviceAccount("team-a/old", 2*time.Hour),
			serviceAccount("team-b/typo", time.Hour, "ampbridge.io/destinations", "centrl"),
			serviceAccount("monitoring/prometheus-k8s", time.Hour), serviceAccount("monitoring/default", time.Hour),
		)},
		{"drift", input(t, base, drifted(t), hourOld("monitoring/prometheus", "team-a/prometheus")...)},
		{"refused", input(t, base, map[string]Account{account: {Roles: map[string]Role{role: {
			ARN: policy.ARN{Partition: "aws", Service: "iam", Account: account, Resource: "role/" + role},
		}}}}, hourOld("monitoring/prometheus")...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Compute(c.in)
			text, err := json.MarshalIndent(p, "", "  ")
			testkit.Must(t, err)
			testkit.Golden(t, "testdata/"+c.name+".want.txt", p.String())
			testkit.Golden(t, "testdata/"+c.name+".want.json", string(text)+"\n")

			c.in.Accounts = applyPlan(p, c.in.Accounts)
			if again := Compute(c.in); len(again.Changes) > 0 {
				t.Errorf("the plan after the plan is not empty: %v", calls(again))
			}
			slices.Reverse(c.in.ServiceAccounts)
			if again := Compute(c.in); len(again.Changes) > 0 {
				t.Errorf("the order of the service accounts counts: %v", calls(again))
			}
		})
	}
}

func TestSubjects(t *testing.T) {
	capped := strings.Replace(base, "destinations: [central]}", "destinations: [central], maxSubjectsPerNamespace: 2}", 1)
	annotated := serviceAccount("monitoring/prometheus", time.Hour)
	annotated.Injection = policy.InjectionAnnotated
	unlabelled := serviceAccount("monitoring/prometheus", time.Hour)
	unlabelled.Injection = "off"
	list := func(list ...ServiceAccount) []ServiceAccount { return list }
	prometheus := serviceAccount("monitoring/prometheus", time.Hour)
	teamA := serviceAccount("team-a/prometheus", time.Hour)

	for _, c := range []struct {
		name   string
		before []ServiceAccount // those of a first plan, under the policy base; none: no role yet
		policy string
		now    []ServiceAccount
		want   []string // nil: there is no role
	}{
		{"granted in an enabled namespace", nil, base, list(prometheus), []string{"monitoring/prometheus"}},
		{"granted in an annotated namespace: some pod may ask", nil, base, list(annotated), []string{"monitoring/prometheus"}},
		{"another label value", nil, base, list(unlabelled), nil},
		{"no grant covers the name", nil, base, list(serviceAccount("monitoring/default", time.Hour)), nil},
		{"no grant covers the namespace", nil, base, list(serviceAccount("default/prometheus", time.Hour)), nil},
		{"opted out", nil, base, list(serviceAccount("monitoring/prometheus", time.Hour, "ampbridge.io/inject", "false")), nil},
		{"asked", nil, base, list(serviceAccount("monitoring/prometheus", time.Hour, "ampbridge.io/inject", "true")),
			[]string{"monitoring/prometheus"}},
		{"narrowed to another destination", nil, twoDestinations,
			list(serviceAccount("monitoring/prometheus", time.Hour, "ampbridge.io/destinations", "backup")), nil},
		{"narrowed to this one", nil, twoDestinations,
			list(serviceAccount("monitoring/prometheus", time.Hour, "ampbridge.io/destinations", "central")),
			[]string{"monitoring/prometheus"}},
		{"annotation misspelt", nil, base, list(serviceAccount("monitoring/prometheus", time.Hour, "ampbridge.io/destinations", "centrl")), nil},
		{"paused: trust goes on", nil, "paused: true" + base, list(prometheus), []string{"monitoring/prometheus"}},

		{"a service account that is gone keeps its trust", list(prometheus, teamA), base, list(prometheus),
			[]string{"monitoring/prometheus", "team-a/prometheus"}},
		{"so do all of an empty list", list(prometheus, teamA), base, nil, []string{"monitoring/prometheus", "team-a/prometheus"}},
		{"opting out takes trust away", list(prometheus, teamA), base,
			list(prometheus, serviceAccount("team-a/prometheus", time.Hour, "ampbridge.io/inject", "false")), []string{"monitoring/prometheus"}},
		{"a misspelt annotation does not", list(prometheus, teamA), base,
			list(prometheus, serviceAccount("team-a/prometheus", time.Hour, "ampbridge.io/inject", "flase")),
			[]string{"monitoring/prometheus", "team-a/prometheus"}},
		{"a grant that ends takes trust away", list(prometheus, teamA), revoked, list(prometheus, teamA), []string{"monitoring/prometheus"}},
		{"also where nothing is seen", list(prometheus, teamA), revoked, nil, []string{"monitoring/prometheus"}},
		{"the last one closes the role", list(teamA), revoked, list(teamA), []string{}},

		{"a cap: the oldest come in", nil, capped, list(
			serviceAccount("team-a/c-prometheus", time.Hour), serviceAccount("team-a/b-prometheus", 2*time.Hour),
			serviceAccount("team-a/a-prometheus", 3*time.Hour), prometheus,
		), []string{"monitoring/prometheus", "team-a/a-prometheus", "team-a/b-prometheus"}},
		{"a cap: who is trusted keeps its place, however new", list(serviceAccount("team-a/c-prometheus", time.Hour)), capped, list(
			serviceAccount("team-a/c-prometheus", time.Hour), serviceAccount("team-a/b-prometheus", 2*time.Hour),
			serviceAccount("team-a/a-prometheus", 3*time.Hour),
		), []string{"team-a/a-prometheus", "team-a/c-prometheus"}},
		{"a cap that was lowered takes nobody's trust", list(
			serviceAccount("team-a/a-prometheus", time.Hour), serviceAccount("team-a/b-prometheus", time.Hour),
			serviceAccount("team-a/c-prometheus", time.Hour),
		), capped, list(serviceAccount("team-a/d-prometheus", 9*time.Hour)),
			[]string{"team-a/a-prometheus", "team-a/b-prometheus", "team-a/c-prometheus"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before map[string]Account
			if c.before != nil {
				before = synced(t, c.before...)
			}
			p := Compute(input(t, c.policy, before, c.now...))
			if len(p.Refusals) > 0 {
				t.Errorf("refused: %v", p.Refusals)
			}
			testkit.Equal(t, "trusted", c.want, trusts(t, applyPlan(p, before)))
		})
	}
}

func TestClosedRoleLetsNobodyIn(t *testing.T) {
	before := synced(t, hourOld("team-a/prometheus")...)
	p := Compute(input(t, revoked, before))
	wantCalls(t, p, "UpdateAssumeRolePolicy")
	for _, s := range p.Changes[0].Trust.Statement {
		if s.Effect != "Deny" {
			t.Errorf("a statement of a closed role allows: %+v", s)
		}
	}
	after := applyPlan(p, before)
	if again := Compute(input(t, revoked, after)); len(again.Changes) > 0 {
		t.Errorf("a closed role is not left alone: %v", calls(again))
	}
	reopened := Compute(input(t, base, after, hourOld("team-a/prometheus")...))
	if got := trusts(t, applyPlan(reopened, after)); !slices.Equal(got, []string{"team-a/prometheus"}) {
		t.Errorf("reopened: trusted %v", got)
	}
}

func TestDriftIsCorrectedAndNothingElse(t *testing.T) {
	for _, c := range []struct {
		name  string
		drift func(*Account, *Role)
		want  []string
	}{
		{"none", func(*Account, *Role) {}, nil},
		{"tags and audiences of others stay", func(a *Account, r *Role) {
			r.Tags["team"], a.Provider.Tags["team"] = "sre", "sre"
			a.Provider.Audiences = append(a.Provider.Audiences, "other")
		}, nil},
		{"the description is free", func(_ *Account, r *Role) { r.Description = "mine" }, nil},
		{"documents in IAM's own spelling", func(_ *Account, r *Role) {
			r.Trust = strings.ReplaceAll(strings.Replace(r.Trust, `"sts:AssumeRoleWithWebIdentity"`, `["sts:assumerolewithwebidentity"]`, 1), "{",
				"%7B")
		}, nil},
		{"trust", func(_ *Account, r *Role) { r.Trust = strings.Replace(r.Trust, "StringEquals", "StringLike", 1) },
			[]string{"UpdateAssumeRolePolicy"}},
		{"trust that cannot be read", func(_ *Account, r *Role) { r.Trust = `{"Statement":[{"Effekt":"Allow"}]}` },
			[]string{"UpdateAssumeRolePolicy"}},
		{"permissions", func(_ *Account, r *Role) { r.Permissions = strings.Replace(r.Permissions, "RemoteWrite", "*", 1) },
			[]string{"PutRolePolicy"}},
		{"no permissions", func(_ *Account, r *Role) { r.Permissions = "" }, []string{"PutRolePolicy"}},
		{"boundary", func(_ *Account, r *Role) { r.Boundary = "arn:aws:iam::aws:policy/AdministratorAccess" },
			[]string{"PutRolePermissionsBoundary"}},
		{"maximum session", func(_ *Account, r *Role) { r.MaxSession = time.Hour }, []string{"UpdateRole"}},
		{"role tag", func(_ *Account, r *Role) { delete(r.Tags, TagCluster) }, []string{"TagRole"}},
		{"audience", func(a *Account, _ *Role) { a.Provider.Audiences = nil }, []string{"AddClientIDToOpenIDConnectProvider"}},
		{"provider tag", func(a *Account, _ *Role) { a.Provider.Tags[TagCluster] = "x" }, []string{"TagOpenIDConnectProvider"}},
		{"provider deleted", func(a *Account, _ *Role) { a.Provider = nil }, []string{"CreateOpenIDConnectProvider"}},
		{"role deleted", func(a *Account, _ *Role) { delete(a.Roles, role) }, []string{"CreateRole", "PutRolePolicy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			sa := serviceAccount("monitoring/prometheus", time.Hour)
			accounts := synced(t, sa)
			a, r := accounts[account], accounts[account].Roles[role]
			a.Roles = map[string]Role{role: r}
			c.drift(&a, &r)
			if _, exists := a.Roles[role]; exists {
				a.Roles[role] = r
			}
			accounts[account] = a
			in := input(t, base, accounts, sa)
			p := Compute(in)
			wantCalls(t, p, c.want...)
			in.Accounts = applyPlan(p, accounts)
			if again := Compute(in); !again.InSync() {
				t.Errorf("not in sync after the plan: %v %v", calls(again), again.Refusals)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	arn := func(resource string) policy.ARN {
		return policy.ARN{Partition: "aws", Service: "iam", Account: account, Resource: resource}
	}
	own := owner(policytest.Parse(t, base))
	foreignRole := func(resource string, tags map[string]string) map[string]Account {
		return map[string]Account{account: {Roles: map[string]Role{role: {ARN: arn(resource), Tags: tags}}}}
	}
	right := "role/ampbridge/dev-aks/" + role
	for _, c := range []struct {
		name     string
		accounts map[string]Account
		want     string // part of the one refusal
	}{
		{"a role that sync did not make", foreignRole(right, nil), "was not created by sync"},
		{"a role of another cluster of that name", foreignRole(right, map[string]string{TagOwner: "0123", TagCluster: "dev-aks"}),
			"another issuer (ampbridge.io/owner 0123"},
		{"an admin's role on another path", foreignRole("role/"+role, nil), "unique whatever their path"},
		{"our tags on another path", foreignRole("role/"+role, map[string]string{TagOwner: own}), "but another path"},
		{"a provider without the audience", map[string]Account{account: {Provider: &Provider{Audiences: []string{"other"}}}},
			"aws iam add-client-id-to-open-id-connect-provider --open-id-connect-provider-arn " +
				"'arn:aws:iam::111122223333:oidc-provider/" +
				issuer.Host() + "' --client-id " +
				"'sts.amazonaws.com'"},
		{"a provider of a cluster with the same issuer", map[string]Account{account: {Provider: &Provider{
			Audiences: []string{"sts.amazonaws.com"}, Tags: map[string]string{TagOwner: "0123", TagCluster: "prod"},
		}}}, `belongs to cluster "prod", which has the same issuer`},
		{"an account that could not be read", map[string]Account{account: {Problem: "GetRole: AccessDenied: no"}}, "GetRole: AccessDenied: no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Compute(input(t, base, c.accounts, hourOld("monitoring/prometheus")...))
			if len(p.Changes) > 0 {
				t.Errorf("changes in an account that must not be touched: %v", calls(p))
			}
			if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, c.want) {
				t.Errorf("refusals %v, want one with %q", p.Refusals, c.want)
			}
		})
	}
}

// A subject that was added by hand stays only if a grant covers it and it has not opted out.
func TestSubjectsThatWereAddedByHand(t *testing.T) {
	accounts := synced(t, hourOld("monitoring/prometheus")...)
	r := accounts[account].Roles[role]
	var added []string
	for _, s := range []string{"team-a:prometheus", "team-out:prometheus", "other:prometheus", "monitoring:default", "team-*:prometheus",
		"monitoring:*", "team-${*}:prometheus", "TEAM-A:prometheus"} {
		added = append(added, `"system:serviceaccount:`+s+`"`)
	}
	r.Trust = strings.Replace(
		r.Trust,
		`:sub":"system:serviceaccount:monitoring:prometheus"`,
		`:sub":["system:serviceaccount:monitoring:prometheus",`+strings.Join(added, ",")+`]`,
		1,
	)
	accounts[account].Roles[role] = r
	if len(trusts(t, accounts)) < 4 {
		t.Fatalf("nothing was added: %s", r.Trust)
	}
	p := Compute(input(t, base, accounts,
		serviceAccount("monitoring/prometheus", time.Hour),
		serviceAccount("team-out/prometheus", time.Hour, "ampbridge.io/inject", "false"),
	))
	after := applyPlan(p, accounts)
	testkit.Equal(t, "trusted", []string{"monitoring/prometheus", "team-a/prometheus"}, trusts(t, after))
	if text := after[account].Roles[role].Trust; strings.ContainsAny(text, "*$") {
		t.Errorf("what no service account is named is left: %s", text)
	}
}

// Trust that the policy no longer gives is removed first, even if other changes are refused.
func TestTrustShrinksFirst(t *testing.T) {
	before := func() map[string]Account {
		return synced(t, hourOld("monitoring/prometheus", "team-a/prometheus")...)
	}
	now := hourOld("monitoring/prometheus", "monitoring/a-prometheus")

	t.Run("before the boundary, and growing after it", func(t *testing.T) {
		accounts := before()
		r := accounts[account].Roles[role]
		r.Boundary = ""
		accounts[account].Roles[role] = r
		p := Compute(input(t, revoked, accounts, now...))
		wantCalls(t, p, "UpdateAssumeRolePolicy", "PutRolePermissionsBoundary", "UpdateAssumeRolePolicy")
		first := applyPlan(Plan{Changes: p.Changes[:1]}, accounts)
		testkit.Equal(t, "after the first change", []string{"monitoring/prometheus"}, trusts(t, first))
		testkit.Equal(t, "after all", []string{"monitoring/a-prometheus", "monitoring/prometheus"}, trusts(t, applyPlan(p, accounts)))
	})
	t.Run("though the provider is refused", func(t *testing.T) {
		accounts := before()
		accounts[account].Provider.Tags[TagOwner] = "0123"
		p := Compute(input(t, revoked, accounts, now...))
		if len(p.Refusals) != 1 {
			t.Errorf("refusals %v", p.Refusals)
		}
		testkit.Equal(t, "trusted", []string{"monitoring/prometheus"}, trusts(t, applyPlan(p, accounts)))
	})
}

func TestRolesThatNoDestinationUses(t *testing.T) {
	in := input(t, twoDestinations, nil, hourOld("monitoring/prometheus")...)
	in.Accounts = applyPlan(Compute(in), nil)
	left := in.Accounts[account].Roles["ampbridge.dev-aks.backup"]
	foreign := left
	foreign.Tags = map[string]string{TagOwner: "0123"}
	alone := in.Accounts[account]
	alone.Roles = map[string]Role{role: alone.Roles[role]}
	own := func(text, destination, field string) string {
		return strings.Replace(text, "- {name: "+destination+",", "- {name: "+destination+", "+field+`: "`+left.ARN.String()+`",`, 1)
	}
	for _, c := range []struct {
		name   string
		policy string
		other  Role
		closed bool
	}{
		{"its destination is gone", base, left, true},
		{"another cluster's", base, foreign, false},
		{"an admin keeps it as a second role", own(base, "central", "assumeRole"), left, false},
		{"an admin keeps it himself", own(twoDestinations, "backup", "role"), left, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			found := alone
			found.Orphans = []Role{c.other}
			in := input(t, c.policy, map[string]Account{account: found}, hourOld("monitoring/prometheus")...)
			var change *Change
			for _, made := range Compute(in).Changes {
				if made.Resource == left.ARN {
					change = &made
				}
			}
			if (change != nil) != c.closed {
				t.Fatalf("closed: %v", change)
			}
			if change == nil {
				return
			}
			if got := change.Trust.Subjects(issuer); len(got) > 0 || change.Trust.Statement[0].Effect != "Deny" ||
				len(change.Trust.Statement) != 1 {
				t.Errorf("trust document %s", change.Trust)
			}
			found.Orphans[0].Trust = change.Trust.String()
			if again := Compute(in); !again.InSync() {
				t.Errorf("the plan after the plan:\n%s", again)
			}
		})
	}
}

func TestForeignProviderWithTheAudienceIsUsed(t *testing.T) {
	found := map[string]Account{
		account: {Provider: &Provider{Audiences: []string{"other", "sts.amazonaws.com"}, Tags: map[string]string{"terraform": "yes"}}},
	}
	wantCalls(t, Compute(input(t, base, found, hourOld("monitoring/prometheus")...)), "CreateRole", "PutRolePolicy")
}

func TestTrustQuota(t *testing.T) {
	var all []ServiceAccount
	for i := range 60 {
		all = append(all, serviceAccount(fmt.Sprintf("team-%02d/prometheus", i), time.Duration(i)*time.Hour))
	}
	in := input(t, base, nil, all...)
	p := Compute(in)
	if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, "--trust-quota") {
		t.Fatalf("refusals %v, want one that names the ways out", p.Refusals)
	}
	if got := len(p.Changes[1].Trust.String()); got > TrustQuota || got < TrustQuota-60 {
		t.Errorf("the trust document has %d characters: the room is not used, or too much of it", got)
	}
	accounts := applyPlan(p, nil)
	trusted := trusts(t, accounts)
	if !slices.Contains(trusted, "team-59/prometheus") || slices.Contains(trusted, "team-00/prometheus") {
		t.Errorf("trusted %v: want the oldest, not the newest", trusted)
	}
	if !strings.Contains(p.Refusals[0].Message, "system:serviceaccount:team-00:prometheus") {
		t.Errorf("the refusal does not name who is left out: %s", p.Refusals[0].Message)
	}

	// An older newcomer does not push out who is trusted.
	in.Accounts = accounts
	in.ServiceAccounts = append(in.ServiceAccounts, serviceAccount("team-zz/prometheus", 1000*time.Hour))
	again := Compute(in)
	if len(again.Changes) != 0 || len(again.Refusals) != 1 {
		t.Errorf("full role: changes %v, refusals %v", calls(again), again.Refusals)
	}

	in.TrustQuota = 8192
	if raised := Compute(in); len(raised.Refusals) != 0 || len(trusts(t, applyPlan(raised, accounts))) != 61 {
		t.Errorf("raised quota: refusals %v", raised.Refusals)
	}
}

func TestManagedByOthers(t *testing.T) {
	none := strings.Replace(base, "trust: {", "trust: {manage: none, ", 1)
	p := Compute(input(t, none, nil, hourOld("monitoring/prometheus")...))
	if !p.InSync() || len(p.Notes) != 1 || Targets(policytest.Parse(t, none), issuer) != nil {
		t.Errorf("trust.manage: none: %+v, targets %v", p, Targets(policytest.Parse(t, none), issuer))
	}
}

func TestMaximumSessionAndBoundary(t *testing.T) {
	for _, c := range []struct {
		duration, boundary, wantBoundary string
		want                             int
	}{
		{"15m", "arn:aws:iam::999999999999:policy/b", "arn:aws:iam::111122223333:policy/b", 3600},
		{"6h", "arn:aws:iam::111122223333:policy/p/b", "arn:aws:iam::111122223333:policy/p/b", 21600},
		{"1h0m0.5s", "arn:aws:iam::aws:policy/ReadOnlyAccess", "arn:aws:iam::aws:policy/ReadOnlyAccess", 3601},
	} {
		text := strings.Replace(
			base,
			"arn:aws:iam::999999999999:policy/ampbridge/boundary",
			c.boundary,
			1,
		) + "session: {duration: " + c.duration + "}\n"
		p := Compute(input(t, text, nil, hourOld("monitoring/prometheus")...))
		if got := p.Changes[1]; got.MaxSessionSeconds != c.want || got.Boundary.String() != c.wantBoundary {
			t.Errorf("%s, %s: got %d seconds and %s", c.duration, c.boundary, got.MaxSessionSeconds, got.Boundary)
		}
	}
}

// From any state: no subject is trusted without a grant, no granted subject loses its trust because
// it was not seen, and the next plan is empty.
func TestTrustIsNeitherWiderThanThePolicyNorLost(t *testing.T) {
	random := rand.New(rand.NewSource(1))
	names := []string{"prometheus", "a-prometheus", "prometheus-", "default"}
	namespaces := []string{"monitoring", "team-a", "team-b", "other"}
	pick := func() []ServiceAccount {
		chosen := map[string]ServiceAccount{}
		for range random.Intn(8) {
			key := namespaces[random.Intn(4)] + "/" + names[random.Intn(4)]
			chosen[key] = serviceAccount(key, time.Duration(random.Intn(100))*time.Hour)
		}
		return slices.Collect(maps.Values(chosen))
	}
	globs := []string{"monitoring", "team-*", "team-b", "*"}
	for i := range 2000 {
		text := strings.Replace(base, `[monitoring, "team-*"]`, fmt.Sprintf("[%q]", globs[random.Intn(4)]), 1)
		before := synced(t, pick()...)
		now := pick()
		in := input(t, text, before, now...)
		first := Compute(in)
		after := applyPlan(first, before)
		got := trusts(t, after)
		granted := func(name string) bool {
			namespace, sa, _ := strings.Cut(name, "/")
			_, ok := in.Policy.Entitled(policy.Subject{Namespace: namespace, ServiceAccount: sa})
			return ok
		}
		for _, name := range got {
			if !granted(name) {
				t.Fatalf("run %d: %s is trusted and not granted", i, name)
			}
		}
		want := trusts(t, before)
		for _, sa := range now {
			want = append(want, sa.Namespace+"/"+sa.Name)
		}
		for _, name := range want {
			if granted(name) && !slices.Contains(got, name) {
				t.Fatalf("run %d: %s is granted, seen or trusted before, and not trusted", i, name)
			}
		}
		in.Accounts = after
		if again := Compute(in); len(again.Changes) > 0 {
			t.Fatalf("run %d: the plan after the plan: %v", i, calls(again))
		}
	}
}

// AMP keeps keys that differ in case alone beside each other; IAM has one of them.
func TestTagDifferencesIgnoreCase(t *testing.T) {
	for _, c := range []struct {
		is, want map[string]string
		differs  int
	}{
		{map[string]string{"team": "a", "Team": "b"}, map[string]string{"Team": "b"}, 0},
		{map[string]string{"team": "a", "Team": "b", "TEAM": "c"}, map[string]string{"team": "a"}, 0},
		{map[string]string{"team": "a", "Team": "b"}, map[string]string{"Team": "a"}, 1},
		{map[string]string{"team": "a"}, map[string]string{"Team": "a"}, 0},
		{map[string]string{"team": "a"}, map[string]string{"Team": "b"}, 1},
		{nil, map[string]string{"Team": "b"}, 1},
	} {
		for range 20 { // maps have no order
			if got := TagDifferences(c.is, c.want); len(got) != c.differs {
				t.Fatalf("%v, wanted %v: %v", c.is, c.want, got)
			}
		}
	}
}
