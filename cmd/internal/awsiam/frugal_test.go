package awsiam_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// A frugal pass does not see a role that its list lacks. It changes no such role, and
// the next pass sees it.
func TestFrugalPassOverwritesNothing(t *testing.T) {
	const trust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`
	for _, test := range []struct {
		name, want string
		prepare    func(*fixture)
	}{
		{"on another path", "is not this cluster's", func(f *fixture) {
			f.must(f.admin().CreateRole(f.ctx, &iam.CreateRoleInput{RoleName: new(roleName), AssumeRolePolicyDocument: new(trust)}))
		}},
		{"made a moment ago with another trust document", "with another trust document", func(f *fixture) {
			f.converge("prometheus-other")
			f.cloud.SetReadDelay(time.Hour)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t, policyText)
			test.prepare(f)
			i := awsiam.New(nil)
			i.Frugal = true
			target := plan.Targets(f.policy, f.issuer)[0]
			if found := i.Observe(f.ctx, target); found.Problem != "" || len(found.Roles) > 0 {
				t.Fatalf("the list shows %v", found)
			}
			f.cloud.SetReadDelay(0)
			before := f.state()
			made := plan.Compute(plan.Input{Policy: f.policy, Issuer: f.issuer, Accounts: map[string]plan.Account{target.Account: {}},
				ServiceAccounts: []plan.ServiceAccount{{Namespace: "monitoring", Name: "prometheus", Injection: "enabled"}}})
			refused := 0
			for _, c := range made.Changes {
				if c.Call != plan.CreateRole {
					continue
				}
				refused++
				if err := i.Apply(f.ctx, c); err == nil || !strings.Contains(err.Error(), test.want) {
					t.Errorf("%s: %v, want %q", c.Call, err, test.want)
				}
			}
			if after := f.state(); refused != 1 || after != before {
				t.Errorf("%d refused; now:\n%s\nbefore:\n%s", refused, after, before)
			}
			if found := i.Observe(f.ctx, target); found.Problem != "" || len(found.Roles) != 1 {
				t.Errorf("the next pass sees %v", found)
			}
		})
	}
}

// Calls that AWS throttles make the pause longer, and answered ones shorter. A pass
// that has had no answer does not try a throttled call again.
func TestPauseAdapts(t *testing.T) {
	f := newFixture(t, policyText)
	calls := 0
	i := awsiam.New(nil)
	i.Frugal, i.Patient = true, true
	i.OnCall = func(string, string) { calls++ }
	target := plan.Targets(f.policy, f.issuer)[0]
	throttled := f.cloud.Fail("iam:*", awstest.Throttle)
	var least time.Duration
	for n := range 5 {
		if found := i.Observe(f.ctx, target); found.Problem == "" || !i.Throttled(target.Account) || calls != n+1 {
			t.Fatalf("%v after %d calls", found, calls)
		}
		if n == 4 {
			least = i.Pause(target.Account)
		}
	}
	if least < 20*time.Second || least > 60*time.Second {
		t.Errorf("after five throttled passes the pause is %v", least)
	}
	if again := awsiam.New(nil); again.Pause(target.Account) != 0 {
		t.Error("an IAM that called nothing pauses")
	} else if again.Inherit(i); again.Pause(target.Account) < 20*time.Second {
		t.Error("a new policy forgets the pause")
	}
	throttled.Stop()
	for range 10 {
		if found := i.Observe(f.ctx, target); found.Problem != "" {
			t.Fatal(found.Problem)
		}
	}
	if got := i.Pause(target.Account); got > time.Second {
		t.Errorf("after many answers the pause is %v", got)
	}
}
