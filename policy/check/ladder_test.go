package check

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a link needs comes before it, so that one walk in the chain's order
// finds every broken link first.
func TestChainNeedsWhatComesBefore(t *testing.T) {
	for i, r := range Chain {
		for _, need := range r.Needs {
			if at := position(need); at >= i {
				t.Errorf("%s needs %s, which is not before it", r.ID, need)
			}
		}
		if !strings.HasSuffix(r.Question, "?") {
			t.Errorf("%s asks %q", r.ID, r.Question)
		}
	}
}

func TestEveryLinkHasAStepOfTheDiagram(t *testing.T) {
	for _, r := range Chain {
		n := 0
		for _, s := range steps {
			if slices.Contains(s.links, r.ID) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d steps of the diagram, want 1", r.ID, n)
		}
	}
}

func TestBlocked(t *testing.T) {
	central := About{Subject: "system:serviceaccount:a:b", Destination: "central", Account: "111122223333"}
	backup := About{Subject: central.Subject, Destination: "backup", Account: "444455556666"}
	for _, c := range []struct {
		name    string
		before  []Finding
		link    ID
		about   About
		because ID // empty: it is looked at
	}{
		{"nothing before", nil, Session, central, ""},
		{"what it needs holds", []Finding{Passed(TrustDocument, central, "")}, Session, central, ""},
		{"what it needs is broken", []Finding{Failed(TrustDocument, central, Fix{}, "")}, Session, central, TrustDocument},
		{"what it needs is doubtful", []Finding{Warned(TrustDocument, central, Fix{}, "")}, Session, central, ""},
		{"what it needs could not be looked at", []Finding{Skipped(TrustDocument, central, "no credentials")}, Session, central, ""},
		{"another destination's is broken", []Finding{Failed(TrustDocument, backup, Fix{}, "")}, Session, central, ""},
		{"that of all of the account is broken", []Finding{Failed(OIDCProvider, About{Account: central.Account}, Fix{}, "")}, Session, central, OIDCProvider},
		{"that of another account is broken", []Finding{Failed(OIDCProvider, About{Account: backup.Account}, Fix{}, "")}, Session, central, ""},
		{"that of everything is broken", []Finding{Failed(IssuerMatches, About{}, Fix{}, "")}, TrustDocument, central, IssuerMatches},
		{"what that needs is broken", []Finding{Failed(RoleExists, central, Fix{}, ""), {Check: Session, State: Skip, About: central, BlockedBy: RoleExists}}, Write, central, RoleExists},
		{"something else is broken", []Finding{Failed(Endpoints, About{}, Fix{}, "")}, Session, central, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Runner
			e.Add(c.before...)
			if got := e.Blocked(c.link, c.about); got != (c.because != "") {
				t.Fatalf("blocked: %v", got)
			}
			if c.because == "" {
				return
			}
			want := Finding{Check: c.link, State: Skip, About: c.about, BlockedBy: c.because, Message: "not checked: it rests on " + string(c.because)}
			if diff := cmp.Diff(want, e.findings[len(e.findings)-1]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		name     string
		findings []Finding
		want     string
	}{
		{"all well", []Finding{Passed(Policy, About{}, "")}, "every link holds"},
		{"some not checked", []Finding{Passed(Policy, About{}, ""), Skipped(Pods, About{}, "")}, "every link that was checked holds (1 not checked)"},
		{"some not asked", []Finding{Passed(Policy, About{}, ""), NotAsked(Write, About{}, "")}, "every link holds"},
		{"some not checked, some not asked", []Finding{Passed(Policy, About{}, ""), Skipped(Pods, About{}, ""), NotAsked(Write, About{}, "")}, "every link that was checked holds (1 not checked)"},
		{"a doubt", []Finding{Warned(Policy, About{}, Fix{}, "")}, "every link holds (1 doubtful)"},
		{"none checked", []Finding{Skipped(Policy, About{}, "")}, "nothing could be checked (1 not checked)"},
		{"one broken twice", []Finding{Failed(TrustDocument, About{Destination: "a"}, Fix{}, ""), Failed(TrustDocument, About{Destination: "b"}, Fix{}, "")}, "1 link is broken: trust"},
		{"two", []Finding{Failed(TrustDocument, About{}, Fix{}, ""), Failed(Policy, About{}, Fix{}, ""), Warned(Pods, About{}, Fix{}, "")}, "2 links are broken: policy, trust (1 doubtful)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Runner
			e.Add(c.findings...)
			l := e.Report()
			if got := l.Verdict(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if healthy := strings.HasPrefix(c.want, "every link"); l.Healthy != healthy {
				t.Errorf("healthy: %v", l.Healthy)
			}
		})
	}
}

func TestUnchecked(t *testing.T) {
	a, b := About{Pod: "monitoring/a"}, About{Pod: "monitoring/b"}
	for _, c := range []struct {
		name     string
		findings []Finding
		want     []ID
	}{
		{"nothing", nil, nil},
		{"all well", []Finding{Passed(Policy, About{}, ""), Warned(Pods, a, Fix{}, "")}, nil},
		{"no means", []Finding{Passed(Flow, a, ""), Skipped(Flow, b, "no right to read it")}, []ID{Flow}},
		{"not asked", []Finding{NotAsked(Write, About{}, "--no-write")}, nil},
		{"behind a broken one", []Finding{Failed(Session, About{}, Fix{}, ""), {Check: Sidecar, State: Skip, About: a, BlockedBy: Session}}, []ID{Sidecar}},
		{"each once, in the chain's order", []Finding{Skipped(Flow, a, ""), Skipped(Flow, b, ""), Skipped(Account, About{}, "")}, []ID{Account, Flow}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Runner
			e.Add(c.findings...)
			if diff := cmp.Diff(c.want, e.Report().Unchecked()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A later check can prove a link for which the means are missing, and no other.
func TestProve(t *testing.T) {
	var e Runner
	e.Add(Skipped(Certificate, About{}, "the Secret cannot be read"), Skipped(Endpoints, About{}, "no rights"),
		Finding{Check: Certificate, State: Skip, BlockedBy: Registration}, Failed(Certificate, About{}, Fix{}, "it has expired"))
	e.Prove(Certificate, "the dry run proves it")
	var states []State
	for _, f := range e.findings {
		states = append(states, f.State)
	}
	if diff := cmp.Diff([]State{Pass, Skip, Skip, Fail}, states); diff != "" {
		t.Error(diff)
	}
}

func TestCommand(t *testing.T) {
	for _, c := range []struct {
		command Command
		want    string
	}{
		{Command{"kubectl", "label", "namespace", "a", "b=c"}, "kubectl label namespace a b=c"},
		{Command{"aws", `{"a": 'b'}`}, `aws '{"a": '\''b'\''}'`},
		{Command{"rm", "", "$(reboot)", "a;b"}, `rm '' '$(reboot)' 'a;b'`},
	} {
		if got := c.command.String(); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
	}
}

// With many service accounts the text tells apart only what does not hold.
func TestTextOfMany(t *testing.T) {
	var e Runner
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		e.Add(Passed(TrustDocument, About{Subject: "system:serviceaccount:monitoring:" + name}, "fine"))
	}
	e.Add(Failed(TrustDocument, About{Subject: "system:serviceaccount:monitoring:f"}, NewFix("mend it"), "wrong"))
	var b strings.Builder
	if err := e.Report().Text(&b); err != nil {
		t.Fatal(err)
	}
	want := `✓ trust            5 hold, the first of them for monitoring/a
✗ trust            monitoring/f: wrong
                   → mend it

1 link is broken: trust
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Error(diff)
	}
}
