package doctor_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// fault is a row: what breaks, which link doctor names, and how it is mended.
type fault struct {
	name string
	link check.ID
	// subject is the only one for whom it is broken; empty: for all.
	subject policy.Subject
	// says is part of the finding's sentence.
	says string
	play func(*scene)
	// mend does what the words of the mend say; nil: its commands are followed.
	mend func(*scene)
	// after puts back what the mend does not concern.
	after func(*scene)
	// installed: the policy comes from the ConfigMap.
	installed bool
	// args are doctor's.
	args []string
}

func TestDoctor(t *testing.T) {
	s := newScene(t)
	s.healthy(fault{})
	s.healthy(fault{installed: true})
	t.Run("means", func(t *testing.T) { s.in(t).means() })
	t.Run("pods", func(t *testing.T) { s.in(t).pods() })
	t.Run("sync", func(t *testing.T) { s.in(t).syncLeads() })
	t.Run("in a pod", func(t *testing.T) { s.in(t).inPod() })
	t.Run("a role for each service account", func(t *testing.T) { s.in(t).roleForEach() })
	for _, faults := range [][]fault{clusterFaults, webhookFaults, issuerFaults, awsFaults, byHandFaults, workspaceFaults} {
		for _, f := range faults {
			// Every row starts where the one before ended: in order.
			if !t.Run(f.name, func(t *testing.T) { s.in(t).act(f) }) {
				t.Fatal("the rows that follow would start from a broken chain")
			}
		}
	}
}

// in is the scene, for a row's own test.
func (s *scene) in(t *testing.T) *scene {
	c := *s
	c.T = t
	return &c
}

func (s *scene) act(f fault) {
	s.Helper()
	f.play(s)
	a := s.examine(f)
	if len(a.Broken) != 1 || a.Broken[0] != f.link || a.status != 1 {
		s.Fatalf("broken: %v, status %d; want %s, 1\n%s", a.Broken, a.status, f.link, a.text())
	}
	if !contains(a.finding().Message, f.says) {
		s.Errorf("it does not say %q\n%s", f.says, a.text())
	}
	for _, r := range check.Chain {
		if r.ID == f.link {
			break
		}
		if state := a.State(r.ID); state != check.Pass && r.ID != check.SyncLeads {
			s.Errorf("%s comes before %s, and is %s\n%s", r.ID, f.link, state, a.text())
		}
	}
	for _, other := range a.Findings {
		if f.subject != (policy.Subject{}) && other.Check == f.link && (other.State == check.Fail) != (other.About.Subject == f.subject.String()) {
			s.Errorf("%s is to be broken for %s alone\n%s", f.link, f.subject, a.text())
		}
	}
	if s.Failed() {
		return
	}
	finding := a.finding()
	s.Logf("%s: %s\n→ %s", finding.Check, finding.Message, finding.Fix.Summary)
	if f.mend != nil {
		f.mend(s)
	} else {
		s.follow(finding.Fix)
	}
	s.healthy(f)
	if f.after != nil {
		f.after(s)
	}
}

func (s *scene) examine(f fault) answer {
	s.Helper()
	args := []string{"--kubeconfig", s.kube.Kubeconfig()}
	if !f.installed {
		args = append(args, "--policy", s.policyFile)
	}
	return s.ask(s.environ(), append(args, f.args...)...)
}

// unchecked is the exit status where no link is broken, and something was not
// checked.
const unchecked = 3

// podLinks need a pod that runs; the table of faults has none.
var podLinks = []check.ID{check.Pods, check.Identity, check.Sidecar, check.Flow}

// byHand reports whether the policy leaves the AWS side to others (trust.manage: none).
func (s *scene) byHand() bool {
	text, err := os.ReadFile(s.policyFile)
	s.try(err)
	return strings.Contains(string(text), "manage: none")
}

// healthy asks doctor, and expects every link to hold that needs no pod. Nothing
// runs sync here but the rows themselves.
func (s *scene) healthy(f fault) {
	s.Helper()
	a := s.examine(f)
	if a.status != unchecked || len(a.Broken) != 0 || !slices.Equal(a.NotChecked, podLinks) || !contains(a.stderr, "every link that was checked holds") {
		s.Fatalf("status %d, broken %v, %s\n%s", a.status, a.Broken, a.stderr, a.text())
	}
	for _, r := range check.Chain {
		want := check.Pass
		switch {
		case slices.Contains(podLinks, r.ID):
			want = check.Skip
		case r.ID == check.SyncLeads && s.byHand():
			want = check.Skip
		case r.ID == check.SyncLeads:
			want = check.Warn
		}
		if state := a.State(r.ID); state != want {
			s.Fatalf("%s is %s\n%s", r.ID, state, a.text())
		}
	}
}
