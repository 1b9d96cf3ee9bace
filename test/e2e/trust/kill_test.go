package trust_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
)

// executioner is a proxy between sync and AWS. It kills sync after its n-th call was executed, but before
// sync gets the answer.
type executioner struct {
	aws http.Handler

	mu     sync.Mutex
	calls  int
	after  int          // 0 for never
	kill   func() error // kills sync
	killed bool
}

func (e *executioner) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	e.calls++
	last := e.calls == e.after
	e.mu.Unlock()
	if !last {
		e.aws.ServeHTTP(w, r)
		return
	}
	e.aws.ServeHTTP(httptest.NewRecorder(), r)
	e.mu.Lock()
	e.killed = e.kill() == nil
	e.mu.Unlock()
	<-r.Context().Done() // the connection ends with sync
}

// execute runs sync and kills it after n calls. killed is false if there were fewer calls.
func (m *member) execute(n int) (calls int, killed bool) {
	m.Helper()
	e := &executioner{aws: m.cloud, after: n}
	server := httptest.NewServer(e)
	defer server.Close()
	var more []string
	for _, v := range m.cloud.Environ() {
		name, _, _ := strings.Cut(v, "=")
		more = append(more, name+"="+server.URL)
	}
	cmd := m.command(context.WithoutCancel(m.Context()), more...)
	e.mu.Lock()
	e.kill = func() error { return cmd.Process.Kill() }
	err := cmd.Start()
	e.mu.Unlock()
	m.must(nil, err)
	err = cmd.Wait()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.killed && err != nil {
		m.Fatalf("sync: %v", err)
	}
	return e.calls, e.killed
}

// Whatever the last call of a killed run was, the next run brings the account to the same state as a run
// without interruption.
func TestKilledAfterEveryCall(t *testing.T) {
	namespace(t, "killed", "prometheus", "prometheus-k8s")
	nothing := func(*fixture, *member) {}
	own := scopes[policy.RoleScopeServiceAccount]
	repairing := func(f *fixture, m *member) {
		m.inSync()
		drift(t.Context(), t, m, f.cloud.Account(m.accountID()).IAM())
	}
	for _, c := range []struct {
		name    string
		scope   func(string) string
		prepare func(f *fixture, m *member)
		things  int // number of roles and providers in the end
	}{
		{"from nothing", scopes[policy.RoleScopeDestination], nothing, 3},
		{"repairing", scopes[policy.RoleScopeDestination], repairing, 3},
		{"a role for each service account, from nothing", own, nothing, 5},
		{"a role for each service account, repairing", own, repairing, 5},
		{"from a role for all to a role for each", scopes[policy.RoleScopeDestination], func(_ *fixture, m *member) {
			m.inSync()
			m.follow(own(policyText("dev", m.accountID(), "killed")))
		}, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			issuer := issuerOf(1)
			join := func(n int) *member {
				id := fmt.Sprintf("%012d", 1000+n)
				account := f.account(id)
				m := f.join(c.scope(policyText("dev", id, "killed")), issuer)
				admin := f.thief(m, account.AdminCredentials())
				f.must(nil, admin.create("/", "admin", ""))
				f.must(nil, admin.create("/ampbridge/dev/", "other", ""))
				f.must(nil, admin.register(adminsIssuer))
				m.confine()
				c.prepare(f, m)
				return m
			}
			state := func(m *member) map[string]string {
				texts := map[string]string{}
				for arn, text := range f.state(f.cloud.Account(m.accountID())) {
					texts[strings.ReplaceAll(arn, m.accountID(), "ACCOUNT")] = strings.ReplaceAll(text, m.accountID(), "ACCOUNT")
				}
				return texts
			}
			undisturbed := join(0)
			total, _ := undisturbed.execute(0)
			want := state(undisturbed)
			// Before the first run there were two roles and a provider of others.
			if len(want) != 3+c.things {
				t.Fatalf("an undisturbed run leaves %d things", len(want))
			}
			n := 1
			for ; ; n++ {
				m := join(n)
				_, killed := m.execute(n)
				if killed {
					m.inSync()
				}
				if diff := cmp.Diff(want, state(m)); diff != "" {
					t.Errorf("killed after call %d of %d, and run again (-undisturbed +got):\n%s", n, total, diff)
				}
				for d := range m.policy.Destinations {
					if err := m.assume(m.role(d), "killed", "prometheus"); err != nil {
						t.Errorf("killed after call %d, and run again: %v", n, err)
					}
				}
				if !killed {
					break // it ended before its nth call
				}
			}
			// The SDK repeats a call if its connection was closed, so two runs can have slightly different
			// numbers of calls.
			if calls := n - 1; calls < total-2 {
				t.Errorf("a run ended after %d calls, and the undisturbed one had %d", calls, total)
			} else {
				total = calls
			}
			t.Logf("killed after each of %d calls", total)
		})
	}
}
