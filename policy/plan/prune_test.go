package plan

import (
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func subject(name string) policy.Subject {
	namespace, sa, _ := strings.Cut(name, "/")
	return policy.Subject{Namespace: namespace, ServiceAccount: sa}
}

func TestPrune(t *testing.T) {
	all := hourOld("monitoring/prometheus", "team-a/prometheus", "team-b/prometheus", "team-c/prometheus")
	const gone = "team-c/prometheus"
	missing := func(n int) []ServiceAccount { return slices.Clone(all[:len(all)-n]) }

	for _, c := range []struct {
		name  string
		now   []ServiceAccount
		after time.Duration // since gone was missed first
		edit  func(*Input)
		want  int    // how many stay trusted
		says  string // part of a note or refusal
	}{
		{"within the grace period", missing(1), time.Hour - time.Second, nil, 4, "keeps its trust until 2026-06-01T13:00:00Z"},
		{"after it", missing(1), time.Hour, nil, 3, ""},
		{"the period is the policy's", missing(1), time.Hour, func(in *Input) { in.Policy.Trust.PruneAfter = policy.Duration(2 * time.Hour) },
			4, "until 2026-06-01T14:00:00Z"},
		{"seen again", all, time.Hour, nil, 4, ""},
		{"seen in another namespace alone", append(missing(1), serviceAccount("team-d/other", time.Hour)), time.Hour, nil, 3, ""},
		{"a pod of it runs", missing(1), time.Hour, func(in *Input) {
			in.Held = map[policy.Subject]string{subject(gone): "a pod of it runs: p-0"}
		}, 4, "but a pod of it runs: p-0"},
		{"nothing at all is seen", nil, 24 * time.Hour, nil, 4, "no service account at all is seen"},
		{"nothing at all is seen, whatever may shrink", nil, 24 * time.Hour, func(in *Input) { in.AllowShrink = true }, 4,
			"no service account at all is seen"},
		{"a memory that could not be read", missing(1), time.Hour, func(in *Input) { in.Absence = AbsenceState{} }, 4, ""},
		{"a memory made for another cluster or issuer", missing(1), time.Hour, func(in *Input) { in.Absence.Owner = "0123" }, 4, ""},
		{"half of them", missing(2), time.Hour, nil, 2, ""},
		{"more than half", missing(3), time.Hour, nil, 4, "3 of 4 trusted subjects are not seen any more"},
		{"more than half, as allowed", missing(3), time.Hour, func(in *Input) { in.AllowShrink = true }, 1, ""},
		{"more than half, but most of them run", missing(3), time.Hour, func(in *Input) {
			in.Held = map[policy.Subject]string{subject("team-a/prometheus"): "x", subject("team-b/prometheus"): "x"}
		}, 3, "team-b"},
		{"a shrinking list is suspected before all are due", missing(3), time.Hour, func(in *Input) {
			in.Absence.Missed[subject("team-a/prometheus")], in.Absence.Missed[subject("team-b/prometheus")] = in.Now, in.Now
		}, 4, "3 of 4"},
	} {
		t.Run(c.name, func(t *testing.T) {
			accounts := synced(t, all...)
			in := input(t, base, accounts, missing(1)...)
			first := TrackAbsence(AbsenceState{}, in)
			testkit.Equal(t, "missed in the first snapshot", map[policy.Subject]time.Time{subject(gone): noon}, first.Missed)
			// The others were missed with it.
			for _, sa := range all[len(c.now):] {
				if s := (policy.Subject{Namespace: sa.Namespace, ServiceAccount: sa.Name}); len(c.now) < len(all) {
					first.Missed[s] = noon
				}
			}
			in.Now, in.ServiceAccounts = noon.Add(c.after), c.now
			in.Absence = TrackAbsence(first, in)
			if c.edit != nil {
				c.edit(&in)
			}
			p := Compute(in)
			if got := trusts(t, applyPlan(p, accounts)); len(got) != c.want {
				t.Errorf("trusted: %v, want %d", got, c.want)
			}
			if !strings.Contains(p.String(), c.says) {
				t.Errorf("the plan does not say %q:\n%s", c.says, p)
			}
			if pruned := slices.ContainsFunc(
				p.SubjectStatuses,
				func(s SubjectStatus) bool { return s.State == Pruned },
			); pruned != (c.want < 4) {
				t.Errorf("subject statuses: %+v", p.SubjectStatuses)
			}
		})
	}
}

// The guard also counts per account, because many small roles have many subjects together.
func TestPruneGuardsTheAccount(t *testing.T) {
	two := strings.Replace(twoDestinations, "destinations: [central, backup]}", `destinations: [central]}
- {namespaces: [other], serviceAccounts: [x], destinations: [backup]}`, 1)
	in := input(t, two, nil, hourOld("team-a/prometheus", "other/x")...)
	in.Accounts = applyPlan(Compute(in), nil)
	in.ServiceAccounts = hourOld("other/default")
	memory := TrackAbsence(AbsenceState{}, in)
	in.Now = noon.Add(time.Hour)
	in.Absence = TrackAbsence(memory, in)
	p := Compute(in)
	if len(p.Changes) != 0 || len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, "2 of 2") {
		t.Errorf("plan:\n%s", p)
	}
}

// One tenant that deletes its own service accounts does not stop the pruning for other tenants. A
// mistake that affects most namespaces stops all pruning.
func TestPruneGuardsNamespaces(t *testing.T) {
	mallory := func(from, to int) (names []string) {
		for i := from; i < to; i++ {
			names = append(names, fmt.Sprintf("team-mallory/m%d-prometheus", i))
		}
		return names
	}
	teams := func(from, to int) (names []string) {
		for i := from; i < to; i++ {
			names = append(names, fmt.Sprintf("team-%d/prometheus", i))
		}
		return names
	}
	for _, c := range []struct {
		name            string
		trusted, gone   []string
		pruned          []string
		refused, unsaid string
	}{
		{"one tenant's many, and another team's one", slices.Concat(mallory(0, 6), teams(0, 3)), slices.Concat(mallory(0, 6), teams(0, 1)),
			teams(0, 1), "6 of 6 trusted subjects are not seen any more in namespace team-mallory", "of the account"},
		{"most of one tenant's, of few namespaces", slices.Concat(mallory(0, 6), teams(0, 2)), slices.Concat(mallory(0, 4), teams(0, 1)),
			teams(0, 1), "4 of 6 trusted subjects are not seen any more in namespace team-mallory", "of the account"},
		{"one tenant's many alone", slices.Concat(mallory(0, 6), teams(0, 2)), mallory(0, 6),
			nil, "no subject of this namespace", "of the account"},
		{"half of one tenant's", slices.Concat(mallory(0, 6), teams(0, 2)), mallory(0, 3), mallory(0, 3), "", "mistake"},
		{"a tenant's one is one namespace", slices.Concat(mallory(0, 1), teams(0, 3)), slices.Concat(mallory(0, 1), teams(0, 1)),
			slices.Concat(mallory(0, 1), teams(0, 1)), "", "mistake"},
		{"most namespaces", teams(0, 5), teams(0, 3), nil, "3 of 5 namespaces lost most of theirs", "this namespace"},
		{"most namespaces beside a tenant's many", slices.Concat(mallory(0, 6), teams(0, 5)), slices.Concat(mallory(0, 6), teams(0, 3)),
			nil, "3 of 5 namespaces lost most of theirs", "this namespace"},
	} {
		for scope, text := range map[string]string{"one role": base, "a role each": each} {
			t.Run(c.name+", "+scope, func(t *testing.T) {
				in := input(t, text, nil, append(hourOld("monitoring/other"), hourOld(c.trusted...)...)...)
				in.Policy.Grants[0].MaxSubjectsPerNamespace = 10
				in.Accounts = applyPlan(Compute(in), nil)
				in.ServiceAccounts = slices.DeleteFunc(in.ServiceAccounts, func(sa ServiceAccount) bool {
					return slices.Contains(c.gone, sa.Namespace+"/"+sa.Name)
				})
				missed := TrackAbsence(AbsenceState{}, in)
				if len(missed.Missed) != len(c.gone) {
					t.Fatalf("missed %v, want %v", missed.Missed, c.gone)
				}
				in.Now = noon.Add(time.Hour)
				in.Absence = TrackAbsence(missed, in)
				plan := Compute(in)
				var pruned []string
				for _, s := range plan.SubjectStatuses {
					if s.State == Pruned {
						pruned = append(pruned, s.Subject.Namespace+"/"+s.Subject.ServiceAccount)
					}
				}
				slices.Sort(pruned)
				if want := slices.Sorted(slices.Values(c.pruned)); !slices.Equal(slices.Compact(pruned), want) {
					t.Errorf("pruned %v, want %v", pruned, want)
				}
				said := ""
				for _, r := range plan.Refusals {
					said += r.Message + "\n"
				}
				if !strings.Contains(said, c.refused) || strings.Contains(said, c.unsaid) || (said == "") != (c.refused == "") {
					t.Errorf("refusals %q, want %q", said, c.refused)
				}
				if strings.Count(said, "--allow-shrink") > 1 {
					t.Errorf("refused twice: %q", said)
				}
				in.AllowShrink = true
				if again := Compute(in); len(again.Refusals) > 0 {
					t.Errorf("though it may shrink: %v", again.Refusals)
				}
			})
		}
	}
}

func TestMemory(t *testing.T) {
	here, gone := serviceAccount("monitoring/prometheus", time.Hour), serviceAccount("team-a/prometheus", time.Hour)
	accounts := synced(t, here, gone)
	in := input(t, base, accounts, here)
	first := TrackAbsence(AbsenceState{}, in)
	in.Now = noon.Add(time.Minute)

	for _, c := range []struct {
		name string
		edit func(*Input)
		want time.Time // zero: forgotten
	}{
		{"still missed: since the first look", func(*Input) {}, noon},
		{"seen", func(in *Input) { in.ServiceAccounts = append(in.ServiceAccounts, gone) }, time.Time{}},
		{"seen, though it opted out", func(in *Input) {
			in.ServiceAccounts = append(in.ServiceAccounts, serviceAccount("team-a/prometheus", 0, "ampbridge.io/inject", "false"))
		}, time.Time{}},
		{"not granted any more: the grant decides",
			func(in *Input) { in.Policy = input(t, revoked, nil).Policy },
			time.Time{}},
		{"an account that cannot be read", func(in *Input) { in.Accounts = map[string]Account{account: {Problem: "denied"}} }, noon},
		{"the role is somebody else's", func(in *Input) {
			in.Accounts = map[string]Account{account: {Roles: map[string]Role{role: {ARN: accounts[account].Roles[role].ARN,
				Trust: accounts[account].Roles[role].Trust}}}}
		}, time.Time{}},
		{"another issuer: the state starts empty", func(in *Input) { in.Issuer += "x/" }, time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := in
			c.edit(&in)
			got, missed := TrackAbsence(first, in).Missed[subject("team-a/prometheus")]
			if missed == c.want.IsZero() || !got.Equal(c.want) {
				t.Errorf("missed %v since %v, want %v", missed, got, c.want)
			}
		})
	}
	if again := TrackAbsence(first, in); !again.Equal(first) {
		t.Errorf("the state changed from snapshot to snapshot: %v, %v", first, again)
	}
}

// After any sequence of changes, a subject keeps its trust if it was seen within the grace period
// or if a pod holds it. A subject that was missed for the whole period loses its trust, unless a
// guard keeps it.
func TestPruneProperty(t *testing.T) {
	const steps, grace = 60, 5
	for seed := range int64(60) {
		random := rand.New(rand.NewSource(seed))
		p := input(t, base, nil).Policy
		p.Trust.PruneAfter = policy.Duration(grace * time.Minute)
		var accounts map[string]Account
		var memory AbsenceState
		lastSeen, held := map[policy.Subject]int{}, map[policy.Subject]string{}
		for step := range steps {
			seen := []ServiceAccount{serviceAccount("monitoring/prometheus", 0)}
			for n := range 8 {
				name := fmt.Sprintf("team-%d/prometheus", n)
				if random.Intn(6) > 0 && (n < 5 || step/15%2 == 0) {
					seen = append(seen, serviceAccount(name, 0))
					lastSeen[subject(name)] = step
				}
				if delete(held, subject(name)); random.Intn(10) == 0 {
					held[subject(name)] = "a pod of it runs"
				}
			}
			in := Input{
				Policy: p, Issuer: issuer, ServiceAccounts: seen, Accounts: accounts, Held: held,
				Now: noon.Add(time.Duration(step) * time.Minute), AllowShrink: random.Intn(2) == 0,
			}
			in.Absence = TrackAbsence(memory, in)
			memory = in.Absence
			before := trusts(t, accounts)
			made := Compute(in)
			accounts = applyPlan(made, accounts)
			after := trusts(t, accounts)
			for _, name := range before {
				lost := !slices.Contains(after, name)
				_, holds := held[subject(name)]
				if early := step-lastSeen[subject(name)] <= grace; lost && (early || holds) && name != "monitoring/prometheus" {
					t.Fatalf(
						"seed %d, step %d: %s lost its trust; seen in step %d, held %v",
						seed,
						step,
						name,
						lastSeen[subject(name)],
						holds,
					)
				}
				if late := step-lastSeen[subject(name)] > grace; !lost && late && !holds && in.AllowShrink &&
					name != "monitoring/prometheus" {
					t.Fatalf("seed %d, step %d: %s kept its trust; seen in step %d", seed, step, name, lastSeen[subject(name)])
				}
			}
			for s := range memory.Missed {
				if slices.ContainsFunc(seen, func(sa ServiceAccount) bool { return sa.Namespace == s.Namespace }) {
					t.Fatalf("seed %d, step %d: %s is seen, and remembered as missing", seed, step, s)
				}
			}
		}
	}
}
