package trust_test

import (
	"bytes"
	"math/rand"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const writeAction = "aps:RemoteWrite"

var queryActions = []string{"aps:QueryMetrics", "aps:GetSeries", "aps:GetLabels", "aps:GetMetricMetadata"}

// permits compares what the roles of a generated policy allow with each destination's access in the policy,
// for both kinds of access, also while the boundary allows no query. It returns how many actions were
// allowed.
func (d drawn) permits(t *testing.T, n int, p *policy.Policy, found plan.Account, random *rand.Rand) (permitted int) {
	t.Helper()
	unbounded := map[string]string{}
	if random.Intn(2) == 0 {
		for name, actions := range d.access {
			if slices.Contains(actions, queryActions[0]) {
				unbounded[name] = "it is an old one"
			}
		}
	}
	made := plan.Compute(plan.Input{Policy: p, Issuer: policy.Issuer(d.issuer), ServiceAccounts: d.accounts, TrustQuota: 1 << 20,
		Accounts: map[string]plan.Account{accountID: found}, Unbounded: unbounded})
	boundary, err := parse(policy.BoundaryDocument(p, accountID).String())
	testkit.Must(t, err)
	allows := func(document document, action string, to policy.Destination) bool {
		t.Helper()
		allowed, err := document.allows(ask{action: action, resource: to.Workspace.String()})
		testkit.Must(t, err)
		return allowed
	}
	for _, c := range made.Changes {
		if c.Permissions == nil {
			continue
		}
		document, err := parse(c.Permissions.String())
		testkit.Must(t, err)
		for _, to := range p.Destinations {
			for _, action := range slices.Concat([]string{writeAction, "aps:DeleteWorkspace", "aps:PutResourcePolicy"}, queryActions) {
				says := slices.Contains(d.access[to.Name], action)
				// With an old boundary, a destination with write access does not allow queries yet. A
				// destination with only query access gets no new subject that could use its role.
				waits := action != writeAction && unbounded[to.Name] != "" && slices.Contains(d.access[to.Name], writeAction)
				want, got := says && !waits && to.Name == c.Destination, allows(document, action, to)
				if got != want {
					t.Fatalf("policy %d: the role for %s may %s on the workspace of %s: %t, want %t\n%s\n%s",
						n, c.Destination, action, to.Name, got, want, d.text, c.Permissions)
				}
				if bounded := allows(boundary, action, to); bounded != says {
					t.Fatalf("policy %d: the boundary allows %s on the workspace of %s: %t\n%s", n, action, to.Name, bounded, d.text)
				}
				if got {
					permitted++
				}
			}
		}
	}
	return permitted
}

// reach returns AMP's answers to a session, by path.
func (m *member) reach(destination int, serviceAccount string) map[string]int {
	m.Helper()
	d, namespace := m.policy.Destinations[destination], string(m.policy.Grants[0].Namespaces[0])
	session, err := m.session(m.roleOf(destination, serviceAccount), namespace, serviceAccount)
	m.must(nil, err)
	statuses := map[string]int{}
	for _, call := range []struct{ method, path, parameters string }{
		{"POST", "remote_write", ""}, {"GET", "query", "?query=vector(1)"}, {"GET", "query_range", "?query=vector(1)&start=0&end=60&step=30"},
		{"GET", "series", "?match[]=up"}, {"GET", "labels", ""}, {"GET", "label/job/values", ""}, {"GET", "metadata", ""},
	} {
		var body []byte
		if call.method == "POST" {
			body = []byte{0} // snappy of a write without samples
		}
		r, err := http.NewRequestWithContext(m.Context(), call.method,
			m.cloud.URL+"/workspaces/"+d.Workspace.ID()+"/api/v1/"+call.path+call.parameters, bytes.NewReader(body))
		m.must(nil, err)
		r.Header.Set("Content-Encoding", "snappy")
		r.Header.Set("Content-Type", "application/x-protobuf")
		m.must(nil, session.SignAMP(r, body, d.Workspace.Region, time.Now()))
		response, err := http.DefaultClient.Do(r)
		m.must(nil, err)
		text := testkit.ReadBody(m, response)
		if statuses[call.path] = response.StatusCode; response.StatusCode/100 == 2 {
			statuses[call.path] = http.StatusOK // the answer to a write is 204
		} else if response.StatusCode != http.StatusForbidden {
			m.Errorf("%s: %s %s", call.path, response.Status, text)
		}
	}
	return statuses
}

// answers returns AMP's expected answers to writes and to queries.
func answers(writes, reads int) map[string]int {
	return map[string]int{"remote_write": writes, "query": reads, "query_range": reads, "series": reads, "labels": reads,
		"label/job/values": reads, "metadata": reads}
}

// A reader can query but not write, a writer can write but not query, and an account with both can do both.
// Before that, sync reports to an installation with only writers that bootstrap must run again, and the
// writers stay unchanged.
func TestReadersAndWriters(t *testing.T) {
	namespace(t, "readers", "prometheus", "grafana", "both")
	for name, scope := range scopes {
		t.Run(name, func(t *testing.T) { readersAndWriters(t, scope) })
	}
}

func readersAndWriters(t *testing.T, scope func(string) string) {
	f := &fixture{T: t, cloud: awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")}), dir: t.TempDir()}
	account := f.cloud.Account(accountID)
	account.AddWorkspace(region, "ws-0001-"+accountID)
	account.AddWorkspace("eu-central-1", "ws-0002-"+accountID)
	admin := account.IAM()
	old := scope(strings.NewReplacer("destinations: [central, backup]", "destinations: [central]",
		"policy/boundary", "policy/ampbridge-boundary").Replace(policyText("dev", accountID, "readers")))
	const reader, both = 2, 3
	more := strings.NewReplacer("grants:\n", strings.ReplaceAll(
		`- {name: reader, workspace: "arn:aws:aps:eu-west-1:ACCOUNT:workspace/ws-0001-ACCOUNT", access: [query]}
- {name: both, workspace: "arn:aws:aps:eu-west-1:ACCOUNT:workspace/ws-0001-ACCOUNT", access: [write, query]}
grants:
`, "ACCOUNT", accountID), "trust: {", `- {namespaces: [readers], serviceAccounts: [grafana], destinations: [reader], mode: identity}
- {namespaces: [readers], serviceAccounts: [both], destinations: [both], mode: identity}
trust: {`).Replace(old)

	m := f.join(old, issuerOf(1))
	bootstrap := func() {
		t.Helper()
		m.creds = account.AdminCredentials()
		if out, err := m.ampbridge(t.Context(), "bootstrap", "--apply", "--yes").CombinedOutput(); err != nil {
			t.Fatalf("bootstrap: %v\n%s", err, out)
		}
	}
	bootstrap()
	m.confine().inSync()
	writer, written := m.roleOf(0, "prometheus").String(), f.state(account)
	untouched := func(when string) {
		t.Helper()
		if diff := cmp.Diff(written[writer], f.state(account)[writer]); diff != "" || written[writer] == "" {
			t.Errorf("%s, the writer's role changed (-want +got):\n%s", when, diff)
		}
		if diff := cmp.Diff(answers(200, 403), m.reach(0, "prometheus")); diff != "" {
			t.Errorf("%s, a writer (-want +got):\n%s", when, diff)
		}
	}
	untouched("at first")

	m.follow(more)
	for _, sees := range []string{"it cannot be read: GetPolicy: AccessDenied", "it does not allow aps:QueryMetrics"} {
		out, err := m.sync()
		if err == nil || !strings.Contains(out, sees) ||
			!strings.Contains(out, "run `ampbridge bootstrap --policy FILE --account "+accountID+" --apply` again") {
			t.Errorf("sync with the old boundary: %v, want an error with %q\n%s", err, sees, out)
		}
		untouched(sees)
		if _, made := f.state(account)[m.roleOf(reader, "grafana").String()]; made {
			t.Errorf("%s: the reader has a role already", sees)
		}
		if diff := cmp.Diff(answers(200, 403), m.reach(both, "both")); diff != "" {
			t.Errorf("%s, an account with both (-want +got):\n%s", sees, diff)
		}
		m.confine() // as after bootstrap: sync can read the boundary, which is still the old one
	}

	bootstrap()
	untouched("after bootstrap")
	m.confine().inSync()
	if out := m.inSync(); !strings.Contains(out, "nothing to change") {
		t.Errorf("the next run:\n%s", out)
	}
	untouched("in sync")
	for name, c := range map[string]struct {
		destination int
		want        map[string]int
	}{"grafana": {reader, answers(403, 200)}, "both": {both, answers(200, 200)}} {
		if diff := cmp.Diff(c.want, m.reach(c.destination, name)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}

	// The boundary limits a role, whatever the role's own document allows.
	_, err := admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{
		RoleName: new(m.roleOf(reader, "grafana").RoleName()), PolicyName: new("wide"),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:*","Resource":"*"}}`),
	})
	f.must(nil, err)
	narrow := strings.ReplaceAll(policy.BoundaryDocument(m.policy, accountID).String(), `"aps:GetSeries",`, "")
	_, err = admin.CreatePolicyVersion(t.Context(), &iam.CreatePolicyVersionInput{
		PolicyArn: new("arn:aws:iam::" + accountID + ":policy/ampbridge-boundary"), PolicyDocument: &narrow, SetAsDefault: true,
	})
	f.must(nil, err)
	want := answers(200, 200) // the workspace is in the boundary for another destination's writes
	want["series"] = 403
	if diff := cmp.Diff(want, m.reach(reader, "grafana")); diff != "" {
		t.Errorf("a wide document under a narrow boundary (-want +got):\n%s", diff)
	}
}
