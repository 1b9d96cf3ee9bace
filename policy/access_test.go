package policy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

const queryActions = `"aps:QueryMetrics","aps:GetSeries","aps:GetLabels","aps:GetMetricMetadata"`

// withAccess is a policy with one destination for each access, each with a workspace of
// its own. The empty access is the default.
func withAccess(t *testing.T, accesses ...string) *Policy {
	t.Helper()
	text := "apiVersion: ampbridge.io/v1alpha1\nkind: Policy\ncluster: {name: dev}\n" +
		"trust: {permissionsBoundary: \"arn:aws:iam::111122223333:policy/ampbridge-boundary\"}\ndestinations:\n"
	for i, access := range accesses {
		text += fmt.Sprintf("- name: d%d\n  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-%d\n", i, i)
		if access != "" {
			text += "  " + access + "\n"
		}
	}
	p, err := Parse([]byte(text))
	testkit.Must(t, err)
	return p
}

// The permissions are those of the access, and no others.
func TestAccessDecidesThePermissions(t *testing.T) {
	const workspace = `"Resource":"arn:aws:aps:eu-west-1:111122223333:workspace/ws-0"}]}`
	const chained = "assumeRole: arn:aws:iam::444455556666:role/second"
	for access, want := range map[string]string{
		"":                              `"Action":"aps:RemoteWrite",` + workspace,
		"access: [write]":               `"Action":"aps:RemoteWrite",` + workspace,
		"access: [query]":               `"Action":[` + queryActions + `],` + workspace,
		"access: [write, query]":        `"Action":["aps:RemoteWrite",` + queryActions + `],` + workspace,
		"access: [query, write]":        `"Action":["aps:RemoteWrite",` + queryActions + `],` + workspace,
		"access: [query]\n  " + chained: `"Action":"sts:AssumeRole","Resource":"arn:aws:iam::444455556666:role/second"}]}`,
	} {
		got := PermissionDocument(withAccess(t, access).Destinations[0]).String()
		testkit.Equal(t, fmt.Sprintf("permissions of access %q", access), `{"Version":"2012-10-17","Statement":[{"Effect":"Allow",`+want, got)
	}
}

// A boundary allows each workspace what the policy says of it.
func TestAccessDecidesTheBoundary(t *testing.T) {
	got := BoundaryDocument(withAccess(t, "", "access: [query]", "access: [write, query]", "access: [write]"), "111122223333").String()
	want := `{"Version":"2012-10-17","Statement":[` +
		`{"Sid":"Write","Effect":"Allow","Action":"aps:RemoteWrite","Resource":["arn:aws:aps:eu-west-1:111122223333:workspace/ws-0",` +
		`"arn:aws:aps:eu-west-1:111122223333:workspace/ws-3"]},` +
		`{"Sid":"Query","Effect":"Allow","Action":[` + queryActions + `],"Resource":"arn:aws:aps:eu-west-1:111122223333:workspace/ws-1"},` +
		`{"Sid":"WriteAndQuery","Effect":"Allow","Action":["aps:RemoteWrite",` + queryActions + `],` +
		`"Resource":"arn:aws:aps:eu-west-1:111122223333:workspace/ws-2"}]}`
	testkit.Equal(t, "the boundary's document", want, got)
}

// Sync may read the boundary only where a role of it queries, so the permissions of
// installations without readers stay the same to the byte.
func TestOnlyReadersNeedTheBoundaryRead(t *testing.T) {
	reads := func(p *Policy) bool {
		return slices.ContainsFunc(SyncPermissions(p, exampleIssuer, "111122223333").Statement, func(s Statement) bool {
			return slices.Contains(s.Action, "iam:GetPolicy")
		})
	}
	for access, want := range map[string]bool{
		"": false, "access: [write]": false, "access: [query]": true, "access: [write, query]": true,
		"access: [query]\n  assumeRole: arn:aws:iam::444455556666:role/second": false,
		"access: [query]\n  role: arn:aws:iam::111122223333:role/mine":         false,
	} {
		if got := reads(withAccess(t, "", access)); got != want {
			t.Errorf("%q: reads the boundary %t, want %t", access, got, want)
		}
	}
	plain, reader := withAccess(t, ""), withAccess(t, "", "access: [query]")
	without := SyncPermissions(reader, exampleIssuer, "111122223333")
	without.Statement = without.Statement[:len(without.Statement)-1]
	testkit.Equal(t, "permissions without the last statement",
		SyncPermissions(plain, exampleIssuer, "111122223333").String(), without.String())
}
