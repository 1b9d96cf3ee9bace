// Package policytest holds the policies that tests of many packages begin with.
package policytest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Workspace is the workspace of [Granting]'s only destination, which is called central.
const Workspace = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"

// head begins every policy.
const head = `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
`

// Granting returns a policy that lets one service account of some namespaces write to
// [Workspace]. The names are glob patterns.
func Granting(serviceAccount string, namespaces ...string) string {
	return fmt.Sprintf(head+`destinations:
- {name: central, workspace: %q}
grants:
- {namespaces: %s, serviceAccounts: [%q], destinations: [central]}
trust: {permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}
`, Workspace, list(namespaces), serviceAccount)
}

// list writes a YAML list of strings.
func list(items []string) string {
	quoted := make([]string, len(items))
	for i, item := range items {
		quoted[i] = strconv.Quote(item)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// TwoAccounts is a draft: its destinations are in two accounts, and the workspace of
// one of them has yet to be created.
const TwoAccounts = head + `destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new"}
- {name: backup, workspace: "arn:aws:aps:eu-central-1:111122223333:workspace/ws-0002"}
- {name: other, workspace: "arn:aws:aps:eu-west-1:444455556666:workspace/ws-0003"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [central]}
token: {audience: "api://AzureADTokenExchange"}
trust:
  permissionsBoundary: "arn:aws:iam::111122223333:policy/ampbridge/boundary"
  accounts: [{id: "444455556666", syncRole: "arn:aws:iam::444455556666:role/team/sync-of-dev"}]
`

// Parse parses a policy, and fails the test if the policy is wrong.
func Parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text))
	testkit.Must(t, err)
	return p
}

// ParseDraft is [Parse] for a policy that may have workspaces yet to be created.
func ParseDraft(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.ParseDraft([]byte(text))
	testkit.Must(t, err)
	return p
}

// Entitled returns what the policy gives to a service account, and fails the test if it gives nothing.
func Entitled(t testing.TB, p *policy.Policy, namespace, serviceAccount string) policy.Entitlement {
	t.Helper()
	e, ok := p.Entitled(policy.Subject{Namespace: namespace, ServiceAccount: serviceAccount})
	if !ok {
		t.Fatalf("no grant covers service account %s of namespace %s", serviceAccount, namespace)
	}
	return e
}
