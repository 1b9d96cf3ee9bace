package awsiam_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// What others give a role is found where the list of the roles is read, is remembered in
// between, and stays.
func TestPoliciesOfOthers(t *testing.T) {
	f := converged(t)
	name, attached := new(roleName), "arn:aws:iam::"+accountID+":policy/boundary"
	inline := &iam.PutRolePolicyInput{RoleName: name, PolicyName: new("debug"), PolicyDocument: new(boundary)}
	f.must(f.admin().PutRolePolicy(f.ctx, inline))
	f.must(f.admin().AttachRolePolicy(f.ctx, &iam.AttachRolePolicyInput{RoleName: name, PolicyArn: &attached}))

	i := awsiam.New(f.policy.Trust.Accounts)
	p := f.plan(i, "prometheus")
	if !p.InSync() || len(p.Drift) != 1 || !strings.Contains(p.Drift[0].Message, "debug, "+attached) {
		t.Fatalf("in sync %t, drift %v", p.InSync(), p.Drift)
	}
	target := plan.Targets(f.policy, f.issuer)[0]
	target.Path = ""
	before := len(f.cloud.Calls())
	if again := i.Observe(f.ctx, target).Roles[roleName].Further; len(again) != 2 {
		t.Errorf("without the list: %v", again)
	}
	if reads, writes := f.calls(before); reads != 3 || writes != 0 {
		t.Errorf("%d reads, %d writes: want 3 reads", reads, writes)
	}
	// Another process has nothing to remember, and looks at its first list.
	if fresh := awsiam.New(f.policy.Trust.Accounts).Observe(f.ctx, target).Roles[roleName].Further; fresh != nil {
		t.Errorf("without any list: %v", fresh)
	}

	f.must(f.admin().DeleteRolePolicy(f.ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: new("debug")}))
	f.must(f.admin().DetachRolePolicy(f.ctx, &iam.DetachRolePolicyInput{RoleName: name, PolicyArn: &attached}))
	if p := f.plan(i, "prometheus"); len(p.Drift) != 0 {
		t.Errorf("they are removed: %v", p.Drift)
	}
}

// Permissions of an older version do not let sync list a role's policies: it goes on.
func TestPoliciesOfOthersAreDenied(t *testing.T) {
	for _, action := range []string{"iam:ListRolePolicies", "iam:ListAttachedRolePolicies"} {
		f := converged(t)
		f.account.Fail(action, awstest.Deny)
		p := f.plan(awsiam.New(f.policy.Trust.Accounts), "prometheus")
		if !p.InSync() || len(p.Drift) != 0 || len(p.Notes) != 1 || !strings.Contains(p.Notes[0].Message, strings.TrimPrefix(action, "iam:")) {
			t.Errorf("%s: in sync %t, drift %v, notes %v", action, p.InSync(), p.Drift, p.Notes)
		}
	}
}
