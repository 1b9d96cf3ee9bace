package awstest_test

import (
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Each call of the workspace's API needs its own action, in the role's policy and in its
// boundary. This double has no Prometheus, so a call that is allowed gets another answer
// than 403.
func TestEachCallNeedsItsAction(t *testing.T) {
	f := newFixture(t)
	boundary, err := f.account.PutManagedPolicy("boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	testkit.Must(t, err)
	testkit.Must(t, call(f.iam.PutRolePermissionsBoundary, &iam.PutRolePermissionsBoundaryInput{
		RoleName: aws.String(writerRole), PermissionsBoundary: &boundary,
	})())
	statement := func(effect, action string) string {
		return `{"Effect":"` + effect + `","Action":"aps:` + action + `","Resource":"` + f.workspace.ARN + `"}`
	}
	document := func(statements ...string) string {
		return `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
	}
	for _, call := range []struct{ method, path, action string }{
		{"POST", "remote_write", "RemoteWrite"},
		{"GET", "query?query=up", "QueryMetrics"}, {"POST", "query", "QueryMetrics"},
		{"GET", "query_range?query=up&start=0&end=1&step=1", "QueryMetrics"}, {"POST", "query_range", "QueryMetrics"},
		{"GET", "series?match[]=up", "GetSeries"}, {"POST", "series", "GetSeries"},
		{"GET", "labels", "GetLabels"}, {"POST", "labels", "GetLabels"}, {"GET", "label/job/values", "GetLabels"},
		{"GET", "metadata", "GetMetricMetadata"},
	} {
		others := document(statement("Allow", "*"), statement("Deny", call.action))
		own := document(statement("Allow", call.action))
		for _, c := range []struct {
			permits, bounds string
			denied          string // what the answer says; empty: the call is allowed
		}{
			{own, own, ""},
			{own, document(statement("Allow", "*")), ""},
			{others, own, "with an explicit deny in an identity-based policy"},
			{own, others, "with an explicit deny in a permissions boundary"},
			{own, document(statement("Allow", "DescribeWorkspace")), "because no permissions boundary allows the aps:" + call.action},
			{document(statement("Allow", "DescribeWorkspace")), own, "because no identity-based policy allows the aps:" + call.action},
		} {
			f.putRolePolicy(c.permits)
			if _, err := f.account.PutManagedPolicy("boundary", c.bounds); err != nil {
				t.Fatal(err)
			}
			status, _, text := f.send(f.request(call.method, "/workspaces/"+f.workspace.ID+"/api/v1/"+call.path, nil, f.session(), nil))
			if denied := status == 403; denied != (c.denied != "") || !strings.Contains(text, c.denied) {
				t.Errorf("%s %s with %s under %s: %d %s, want %q", call.method, call.path, c.permits, c.bounds, status, text, c.denied)
			}
		}
	}
}
