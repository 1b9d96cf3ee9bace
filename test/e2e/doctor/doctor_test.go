package doctor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// fault is a row of the tables. It has what goes wrong, which check fails, and the fix.
type fault struct {
	name string
	// id is the check that fails.
	id check.ID
	// subject is the only one for which the check fails; empty: for all.
	subject policy.Subject
	// message is a part of the finding's message.
	message string
	inject  func(*fixture)
	// fix does what the summary of the fix describes; nil: run the commands of the fix.
	fix func(*fixture)
	// after restores what the fix does not change.
	after func(*fixture)
	// installed is true if the policy comes from the ConfigMap.
	installed bool
	// args are further arguments of doctor.
	args []string
	// kubeconfig is a file in the fixture's directory; empty: the administrator's.
	kubeconfig string
}

// tables are the tables of faults. The very last row sets the clock forward, so no row can follow it.
var tables = [][]fault{
	reachFaults, policyFaults, clusterFaults, registrationFaults, webhookFaults, documentFaults, issuerFaults, roleFaults, awsFaults,
	byHandFaults, sessionFaults, writeFaults, editedFaults, workspaceFaults,
}

// The table has at least 75 faults, each with a name of its own.
func TestFaultsAreMany(t *testing.T) {
	names := map[string]bool{}
	for _, faults := range tables {
		for _, f := range faults {
			if names[f.name] || f.message == "" || f.id == "" {
				t.Errorf("%q: twice, or incomplete", f.name)
			}
			names[f.name] = true
		}
	}
	if len(names) < 75 {
		t.Errorf("%d faults", len(names))
	}
}

func TestDoctor(t *testing.T) {
	s := newFixture(t, func(s *fixture) {
		t.Run("before the installation", func(t *testing.T) { s.in(t).beforeInstallation() })
	})
	s.healthy(fault{})
	s.healthy(fault{installed: true})
	t.Run("limited access", func(t *testing.T) { s.in(t).limitedAccess() })
	t.Run("pods", func(t *testing.T) { s.in(t).pods() })
	t.Run("sync", func(t *testing.T) { s.in(t).syncLeads() })
	t.Run("in a pod", func(t *testing.T) { s.in(t).inPod() })
	t.Run("a role for each service account", func(t *testing.T) { s.in(t).roleForEach() })
	t.Run("no audience in the trust document", func(t *testing.T) { s.in(t).noAudience() })
	for _, faults := range tables {
		for _, f := range faults {
			// Each row starts from the state of the row before it, which is healthy.
			if !t.Run(f.name, func(t *testing.T) { s.in(t).act(f) }) {
				t.Fatal("the next rows would start from a failed check")
			}
		}
	}
}

// noAudience removes the condition on the audience. STS then uses the provider's audiences, so
// this is a warning with a fix.
func (s *fixture) noAudience() {
	s.trust(`"oidc.example.com/clusters/demo/:aud":"sts.amazonaws.com",`, "")
	a := s.runDoctor(fault{})
	i := slices.IndexFunc(a.Findings, func(f check.Finding) bool { return f.ID == check.TrustDocument })
	if f := a.Findings[i]; f.Status != check.Warn || !contains(f.Message, "every audience that is registered") || len(a.Failed) != 0 {
		s.Fatalf("failed: %v\n%s", a.Failed, a.text())
	}
	s.follow(a.Findings[i].Fix)
	s.healthy(fault{})
}

// in returns the fixture for a row's own test.
func (s *fixture) in(t *testing.T) *fixture {
	c := *s
	c.T = t
	return &c
}

func (s *fixture) act(f fault) {
	s.Helper()
	f.inject(s)
	a := s.runDoctor(f)
	if len(a.Failed) != 1 || a.Failed[0] != f.id || a.status != 1 {
		s.Fatalf("failed: %v, status %d; want %s, 1\n%s", a.Failed, a.status, f.id, a.text())
	}
	if !contains(a.finding().Message, f.message) {
		s.Errorf("the message has no %q\n%s", f.message, a.text())
	}
	for _, c := range check.All {
		if c.ID == f.id {
			break
		}
		if status := a.Status(c.ID); status != check.Pass && c.ID != check.SyncLeads && c.ID != check.Read {
			s.Errorf("%s comes before %s, and its status is %s\n%s", c.ID, f.id, status, a.text())
		}
	}
	for _, other := range a.Findings {
		if f.subject != (policy.Subject{}) && other.ID == f.id &&
			(other.Status == check.Fail) != (other.About.Subject == f.subject.String()) {
			s.Errorf("%s must fail for %s alone\n%s", f.id, f.subject, a.text())
		}
	}
	if s.Failed() {
		return
	}
	finding := a.finding()
	s.Logf("%s: %s\n→ %s", finding.ID, finding.Message, finding.Fix.Summary)
	if f.fix != nil {
		f.fix(s)
	} else {
		s.follow(finding.Fix)
	}
	s.healthy(f)
	if f.after != nil {
		f.after(s)
	}
}

func (s *fixture) runDoctor(f fault) answer {
	s.Helper()
	args := []string{"--kubeconfig", s.kube.Kubeconfig()}
	if f.kubeconfig != "" {
		args[1] = filepath.Join(s.dir, f.kubeconfig)
	}
	if !f.installed {
		args = append(args, "--policy", s.policyFile)
	}
	return s.doctor(s.environ(), append(args, f.args...)...)
}

// unchecked is the exit status if no check failed and some were skipped.
const unchecked = 3

// podChecks are the checks that need a running pod. The tables of faults have none.
var podChecks = []check.ID{check.Pods, check.Identity, check.Sidecar, check.Flow}

// byHand reports whether sync does not manage AWS (trust.manage: none).
func (s *fixture) byHand() bool {
	text, err := os.ReadFile(s.policyFile)
	s.try(err)
	return strings.Contains(string(text), "manage: none")
}

// healthy runs doctor, and expects that every check passes that needs no pod. The check of sync
// is a warning, because only the rows run sync, and nothing in the cluster does.
func (s *fixture) healthy(f fault) {
	s.Helper()
	a := s.runDoctor(f)
	if a.status != unchecked || len(a.Failed) != 0 || !slices.Equal(a.NotChecked, podChecks) || !contains(a.stderr, "checks passed") ||
		contains(a.stderr, "failed") {
		s.Fatalf("status %d, failed %v, %s\n%s", a.status, a.Failed, a.stderr, a.text())
	}
	for _, c := range check.All {
		want := check.Pass
		switch {
		case slices.Contains(podChecks, c.ID), c.ID == check.Read: // nothing here reads
			want = check.Skip
		case c.ID == check.SyncLeads && s.byHand():
			want = check.Skip
		case c.ID == check.SyncLeads:
			want = check.Warn
		}
		if status := a.Status(c.ID); status != want {
			s.Fatalf("%s: %s, want %s\n%s", c.ID, status, want, a.text())
		}
	}
}
