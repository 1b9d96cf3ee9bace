package plan

import (
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
)

func TestRemove(t *testing.T) {
	arn := func(resource string) policy.ARN {
		return policy.ARN{Partition: "aws", Service: "iam", Account: account, Resource: resource}
	}
	foreign := Role{ARN: arn("role/ampbridge/dev-aks/admins"), Tags: map[string]string{TagOwner: "0123"}}
	all := []string{"DeleteRolePolicy", "DeleteRole", "DeleteOpenIDConnectProvider"}
	for _, c := range []struct {
		name string
		edit func(*Account)
		want []string
		says string // part of a note or refusal
	}{
		{"all of it", func(*Account) {}, all, ""},
		{"our own role names the provider", func(a *Account) { a.References = []policy.ARN{a.Orphans[0].ARN} }, all, ""},
		{"a foreign role on our path", func(a *Account) { a.Orphans = append(a.Orphans, foreign) }, all, "left as it is"},
		{"a role that stays names the provider", func(a *Account) { a.References = []policy.ARN{foreign.ARN} }, all[:2],
			"is left, because roles that stay trust it: " + foreign.ARN.String()},
		{"who names it cannot be seen", func(a *Account) { a.ReferencesProblem = "ListRoles: AccessDenied" }, all[:2],
			"cannot be read (ListRoles: AccessDenied)"},
		{"a provider of others", func(a *Account) { a.Provider.Tags = nil }, all[:2], "was not created by sync"},
		{"a provider of another cluster", func(a *Account) { a.Provider.Tags = map[string]string{TagOwner: "0123"} }, all[:2],
			"was not created by sync of this cluster"},
		{"no provider", func(a *Account) { a.Provider = nil }, all[:2], ""},
		{"nothing is ours", func(a *Account) { a.Provider, a.Orphans = nil, []Role{foreign} }, nil, ""},
		{"an account that cannot be read", func(a *Account) { a.Problem = "denied" }, nil, "denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			accounts := synced(t, hourOld("monitoring/prometheus")...)
			a := accounts[account]
			a.Orphans, a.Roles = []Role{a.Roles[role]}, nil
			c.edit(&a)
			p := Remove(policytest.Parse(t, base), issuer, map[string]Account{account: a})
			wantCalls(t, p, c.want...)
			if !strings.Contains(p.String(), c.says) {
				t.Errorf("the plan does not say %q:\n%s", c.says, p)
			}
		})
	}
}

func TestRemovalTargets(t *testing.T) {
	text := strings.NewReplacer(
		"grants:",
		`- {name: own, workspace: "arn:aws:aps:eu-west-2:444455556666:workspace/ws-0002", role: "arn:aws:iam::444455556666:role/own"}
grants:`,
		"trust: {",
		`trust: {manage: none, accounts: [{id: "777788889999"}, {id: "111122223333"}], `,
	).Replace(base)
	var got []string
	for _, target := range RemovalTargets(policytest.Parse(t, text), issuer) {
		got = append(got, target.Account+" "+target.Region)
	}
	if want := []string{"111122223333 eu-west-1", "444455556666 eu-west-2", "777788889999 eu-west-1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q: the destinations' accounts, whoever keeps their roles, and those of trust.accounts", got, want)
	}
}
