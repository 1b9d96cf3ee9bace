package trust_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
)

// Twenty processes sync twenty clusters into one account at once. Some are named
// so that they could be taken for each other. Sync keeps them apart itself, and
// IAM would: one is tried without the other.
func TestNoTrustIsLostAmongManyClusters(t *testing.T) {
	namespace(t, "many", "prometheus", "prometheus-k8s")
	t.Run("as administrators", func(t *testing.T) { crowd(t, func(m *member) *member { return m }) })
	t.Run("each with its own permissions", func(t *testing.T) { crowd(t, (*member).confine) })
}

func crowd(t *testing.T, become func(*member) *member) {
	w := newWorld(t)
	account := w.account(accountID)
	admin := w.client(account.AdminCredentials())
	long := strings.Repeat("l", 62)
	names := []string{
		"dev", "dev1", "dev-1", "dev--1", "dev-1-central", "d", "central", "backup", "ampbridge", "dev-backup",
		long + "a", long + "b", long[:40], long[:41], long[:42], "x-0123456789ab", "prod",
		"twin", "twin", // two issuers, one name
		"taken", // an administrator's role has the name
	}
	var members []*member
	for i, name := range names {
		members = append(members, become(w.join(policyText(name, accountID, "many"), issuerOf(100+i))))
	}
	twins, taken := [2]*member{members[17], members[18]}, members[19]
	w.must(admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: aws.String(strings.ToUpper(taken.role(0).RoleName())), AssumeRolePolicyDocument: aws.String(adminsTrust)}))
	before := w.state(account)

	var wg sync.WaitGroup
	outputs, errs := make([]string, len(members)), make([]error, len(members))
	for i, m := range members {
		wg.Go(func() { outputs[i], errs[i] = m.sync() })
	}
	wg.Wait()

	trusts := func(m *member, role policy.ARN) bool {
		one, other := m.assume(role, "many", "prometheus"), m.assume(role, "many", "prometheus-k8s")
		return one == nil && other == nil
	}
	for i, m := range members[:17] {
		if errs[i] != nil || !trusts(m, m.role(0)) || !trusts(m, m.role(1)) {
			t.Errorf("%s lacks trust after one pass: %v\n%s", names[i], errs[i], outputs[i])
		}
	}
	// Of two with one name, each role has one owner, and trusts nobody else.
	for d := range 2 {
		if first, second := trusts(twins[0], twins[0].role(d)), trusts(twins[1], twins[1].role(d)); first == second {
			t.Errorf("%s: trusts the first: %v, the second: %v\n%s\n%s", twins[0].role(d), first, second, outputs[17], outputs[18])
		}
	}
	if errs[17] == nil && errs[18] == nil {
		t.Error("two clusters of one name, and neither was told")
	}
	if errs[19] == nil {
		t.Errorf("a role of an administrator's, and nothing was said:\n%s", outputs[19])
	}
	after := w.state(account)
	for arn, was := range before {
		if diff := cmp.Diff(was, after[arn]); diff != "" {
			t.Errorf("%s was changed (-want +got):\n%s", arn, diff)
		}
	}
	// Nobody's token opens another's role.
	for i, m := range members {
		if other := members[(i+1)%len(members)]; m.policy.Cluster.Name != other.policy.Cluster.Name && m.assume(other.role(0), "many", "prometheus") == nil {
			t.Errorf("%s assumed the role of %s", m.policy.Cluster.Name, other.policy.Cluster.Name)
		}
	}

	// The second pass changes nothing, whoever won.
	for _, m := range members {
		wg.Go(func() { _, _ = m.sync() })
	}
	wg.Wait()
	if diff := cmp.Diff(after, w.state(account)); diff != "" {
		t.Errorf("the second pass (-first +second):\n%s", diff)
	}
}
