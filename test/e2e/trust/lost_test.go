package trust_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"
)

// Twenty processes sync twenty clusters into one account at the same time. Some have names that could be
// confused. Both sync itself and IAM separate them; each is also tested without the other.
func TestNoTrustIsLostAmongManyClusters(t *testing.T) {
	namespace(t, "many", "prometheus", "prometheus-k8s")
	for name, scope := range scopes {
		t.Run(name+", as administrators", func(t *testing.T) { crowd(t, scope, func(m *member) *member { return m }) })
		t.Run(name+", each with its own permissions", func(t *testing.T) { crowd(t, scope, (*member).confine) })
	}
}

func crowd(t *testing.T, scope func(string) string, become func(*member) *member) {
	f := newFixture(t)
	account := f.account(accountID)
	admin := account.IAM()
	long := strings.Repeat("l", 62)
	names := []string{
		"dev", "dev1", "dev-1", "dev--1", "dev-1-central", "d", "central", "backup", "ampbridge", "dev-backup",
		long + "a", long + "b", long[:40], long[:41], long[:42], "x-0123456789ab", "prod",
		"twin", "twin", // two issuers, one name
		"taken", // an administrator's role has the name
	}
	var members []*member
	for i, name := range names {
		members = append(members, become(f.join(scope(policyText(name, accountID, "many")), issuerOf(100+i))))
	}
	twins, taken := [2]*member{members[17], members[18]}, members[19]
	f.must(
		admin.CreateRole(
			t.Context(),
			&iam.CreateRoleInput{
				RoleName:                 new(strings.ToUpper(taken.role(0).RoleName())),
				AssumeRolePolicyDocument: new(adminsTrust),
			},
		),
	)
	before := f.state(account)

	var wg sync.WaitGroup
	outputs, errs := make([]string, len(members)), make([]error, len(members))
	for i, m := range members {
		wg.Go(func() { outputs[i], errs[i] = m.sync() })
	}
	wg.Wait()

	for d := range 2 {
		for _, account := range []string{"prometheus", "prometheus-k8s"} {
			for i, m := range members[:17] {
				if err := m.assume(m.roleOf(d, account), "many", account); err != nil || errs[i] != nil {
					t.Errorf("%s lacks trust after one pass: %v, %v\n%s", names[i], err, errs[i], outputs[i])
				}
			}
			// If two clusters have the same name, each role has one owner, and trusts only that cluster.
			role := twins[0].roleOf(d, account)
			if first, second := twins[0].assume(
				role,
				"many",
				account,
			), twins[1].assume(
				role,
				"many",
				account,
			); (first == nil) == (second == nil) {
				t.Errorf("%s: to the first: %v, to the second: %v\n%s\n%s", role, first, second, outputs[17], outputs[18])
			}
		}
	}
	if errs[17] == nil && errs[18] == nil {
		t.Error("two clusters have the same name, but no error reports it")
	}
	if errs[19] == nil {
		t.Errorf("an administrator's role has the name, but no error reports it:\n%s", outputs[19])
	}
	after := f.state(account)
	for arn, was := range before {
		if diff := cmp.Diff(was, after[arn]); diff != "" {
			t.Errorf("%s was changed (-want +got):\n%s", arn, diff)
		}
	}
	// No token of one cluster can assume a role of another.
	for i, m := range members {
		if other := members[(i+1)%len(members)]; m.policy.Cluster.Name != other.policy.Cluster.Name &&
			m.assume(other.role(0), "many", "prometheus") == nil {
			t.Errorf("%s assumed the role of %s", m.policy.Cluster.Name, other.policy.Cluster.Name)
		}
	}

	// The second pass changes nothing, whichever cluster was first.
	for _, m := range members {
		wg.Go(func() { _, _ = m.sync() })
	}
	wg.Wait()
	if diff := cmp.Diff(after, f.state(account)); diff != "" {
		t.Errorf("the second pass (-first +second):\n%s", diff)
	}
}
