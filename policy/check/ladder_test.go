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
			if at := place(need); at >= i {
				t.Errorf("%s needs %s, which is not before it", r.Link, need)
			}
		}
		if !strings.HasSuffix(r.Asks, "?") {
			t.Errorf("%s asks %q", r.Link, r.Asks)
		}
	}
}

func TestEveryLinkHasAStepOfTheDiagram(t *testing.T) {
	for _, r := range Chain {
		n := 0
		for _, s := range steps {
			if slices.Contains(s.links, r.Link) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s is in %d steps of the diagram, want 1", r.Link, n)
		}
	}
}

func TestBlocked(t *testing.T) {
	central := About{Subject: "system:serviceaccount:a:b", Destination: "central", Account: "111122223333"}
	backup := About{Subject: central.Subject, Destination: "backup", Account: "444455556666"}
	for _, c := range []struct {
		name    string
		before  []Finding
		link    Link
		about   About
		because Link // empty: it is looked at
	}{
		{"nothing before", nil, Session, central, ""},
		{"what it needs holds", []Finding{Holds(TrustDocument, central, "")}, Session, central, ""},
		{"what it needs is broken", []Finding{Fails(TrustDocument, central, Mend{}, "")}, Session, central, TrustDocument},
		{"what it needs is doubtful", []Finding{Doubts(TrustDocument, central, Mend{}, "")}, Session, central, ""},
		{"what it needs could not be looked at", []Finding{Unseen(TrustDocument, central, "no credentials")}, Session, central, ""},
		{"another destination's is broken", []Finding{Fails(TrustDocument, backup, Mend{}, "")}, Session, central, ""},
		{"that of all of the account is broken", []Finding{Fails(OIDCProvider, About{Account: central.Account}, Mend{}, "")}, Session, central, OIDCProvider},
		{"that of another account is broken", []Finding{Fails(OIDCProvider, About{Account: backup.Account}, Mend{}, "")}, Session, central, ""},
		{"that of everything is broken", []Finding{Fails(IssuerMatches, About{}, Mend{}, "")}, TrustDocument, central, IssuerMatches},
		{"what that needs is broken", []Finding{Fails(RoleExists, central, Mend{}, ""), {Link: Session, State: Skipped, About: central, Because: RoleExists}}, Write, central, RoleExists},
		{"something else is broken", []Finding{Fails(Endpoints, About{}, Mend{}, "")}, Session, central, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Examination
			e.Add(c.before...)
			if got := e.Blocked(c.link, c.about); got != (c.because != "") {
				t.Fatalf("blocked: %v", got)
			}
			if c.because == "" {
				return
			}
			want := Finding{Link: c.link, State: Skipped, About: c.about, Because: c.because, Says: "not checked: it rests on " + string(c.because)}
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
		{"all well", []Finding{Holds(Policy, About{}, "")}, "every link holds"},
		{"some not checked", []Finding{Holds(Policy, About{}, ""), Unseen(Pods, About{}, "")}, "every link that was checked holds (1 not checked)"},
		{"some not asked", []Finding{Holds(Policy, About{}, ""), NotAsked(Write, About{}, "")}, "every link holds"},
		{"some not checked, some not asked", []Finding{Holds(Policy, About{}, ""), Unseen(Pods, About{}, ""), NotAsked(Write, About{}, "")}, "every link that was checked holds (1 not checked)"},
		{"a doubt", []Finding{Doubts(Policy, About{}, Mend{}, "")}, "every link holds (1 doubtful)"},
		{"none checked", []Finding{Unseen(Policy, About{}, "")}, "nothing could be checked (1 not checked)"},
		{"one broken twice", []Finding{Fails(TrustDocument, About{Destination: "a"}, Mend{}, ""), Fails(TrustDocument, About{Destination: "b"}, Mend{}, "")}, "1 link is broken: trust"},
		{"two", []Finding{Fails(TrustDocument, About{}, Mend{}, ""), Fails(Policy, About{}, Mend{}, ""), Doubts(Pods, About{}, Mend{}, "")}, "2 links are broken: policy, trust (1 doubtful)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Examination
			e.Add(c.findings...)
			l := e.Ladder()
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
		want     []Link
	}{
		{"nothing", nil, nil},
		{"all well", []Finding{Holds(Policy, About{}, ""), Doubts(Pods, a, Mend{}, "")}, nil},
		{"no means", []Finding{Holds(Flow, a, ""), Unseen(Flow, b, "no right to read it")}, []Link{Flow}},
		{"not asked", []Finding{NotAsked(Write, About{}, "--no-write")}, nil},
		{"behind a broken one", []Finding{Fails(Session, About{}, Mend{}, ""), {Link: Sidecar, State: Skipped, About: a, Because: Session}}, []Link{Sidecar}},
		{"each once, in the chain's order", []Finding{Unseen(Flow, a, ""), Unseen(Flow, b, ""), Unseen(Account, About{}, "")}, []Link{Account, Flow}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e Examination
			e.Add(c.findings...)
			if diff := cmp.Diff(c.want, e.Ladder().Unchecked()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A later check can prove a link for which the means are missing, and no other.
func TestProve(t *testing.T) {
	var e Examination
	e.Add(Unseen(Certificate, About{}, "the Secret cannot be read"), Unseen(Endpoints, About{}, "no rights"),
		Finding{Link: Certificate, State: Skipped, Because: Registration}, Fails(Certificate, About{}, Mend{}, "it has expired"))
	e.Prove(Certificate, "the dry run proves it")
	var states []State
	for _, f := range e.findings {
		states = append(states, f.State)
	}
	if diff := cmp.Diff([]State{OK, Skipped, Skipped, Broken}, states); diff != "" {
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
	var e Examination
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		e.Add(Holds(TrustDocument, About{Subject: "system:serviceaccount:monitoring:" + name}, "fine"))
	}
	e.Add(Fails(TrustDocument, About{Subject: "system:serviceaccount:monitoring:f"}, Do("mend it"), "wrong"))
	var b strings.Builder
	if err := e.Ladder().Text(&b); err != nil {
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
