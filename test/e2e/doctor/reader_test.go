package doctor_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
)

var (
	reader     = policy.Subject{Namespace: namespace, ServiceAccount: "grafana"}
	readerRole = policy.RoleName("demo", "reader")
)

// readers replaces parts of the policy: Grafana reads the workspace that Prometheus writes to.
func (s *fixture) readers() []string {
	return []string{"grants:\n", fmt.Sprintf(`- name: reader
  workspace: %s
  endpoint: %s
  access: [query]
grants:
- namespaces: [%s]
  serviceAccounts: [%s]
  destinations: [reader]
  mode: identity
`, s.workspace.ARN, s.cloud.URL, reader.Namespace, reader.ServiceAccount)}
}

// of returns the finding of a check for a destination, which one service account has; nil: there is none.
func (a answer) of(id check.ID, destination string) *check.Finding {
	i := slices.IndexFunc(a.Findings, func(f check.Finding) bool { return f.ID == id && f.About.Destination == destination })
	if i < 0 {
		return nil
	}
	return &a.Findings[i]
}

// boundary replaces the document of the permissions boundary: it allows writes, and these actions.
func (s *fixture) boundary(more string) {
	s.Helper()
	s.must(s.account.PutManagedPolicy("boundary",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"`+more+`],"Resource":"*"}]}`))
}

const queryActions = `,"aps:QueryMetrics","aps:GetSeries","aps:GetLabels","aps:GetMetricMetadata"`

// A reader gets its answer, and doctor checks each role only for its own kind of access. A fault
// of the reader fails only the checks of the reader.
func TestReaders(t *testing.T) {
	s := newFixture(t, nil)
	s.must(s.kube.Client().CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: reader.ServiceAccount}}, metav1.CreateOptions{}))
	s.setPolicy(s.readers()...)
	s.webhookPolicy(s.policy(s.readers()...))
	s.eventually("the webhook grants both", func() bool {
		return s.runDoctor(fault{}).Status(check.Injection) == check.Pass
	})
	s.boundary(queryActions)
	s.sync()

	t.Run("healthy", func(t *testing.T) { s.in(t).readsAndWrites() })
	for _, f := range []fault{
		{name: "a reader that may write, and not read", id: check.Permissions, message: "aps:QueryMetrics",
			inject: func(s *fixture) { s.permitReader(`"aps:RemoteWrite"`) }},
		{name: "queries without one of their actions", id: check.Permissions, message: "aps:GetLabels",
			inject: func(s *fixture) { s.permitReader(`"aps:QueryMetrics","aps:GetSeries","aps:GetMetricMetadata"`) }},
		{name: "a boundary from before there were readers", id: check.Boundary, message: "aps:QueryMetrics",
			inject: func(s *fixture) { s.boundary("") }, fix: func(s *fixture) { s.boundary(queryActions) }},
		injected("403 to queries", check.Read, "AccessDenied", "aps:QueryMetrics", awstest.Deny),
	} {
		t.Run(f.name, func(t *testing.T) {
			s := s.in(t)
			f.inject(s)
			a := s.runDoctor(fault{})
			finding := a.of(f.id, "reader")
			if !slices.Equal(a.Failed, []check.ID{f.id}) || finding == nil || finding.Status != check.Fail ||
				!contains(finding.Message, f.message) {
				s.Fatalf("failed: %v, want %s with %q\n%s", a.Failed, f.id, f.message, a.text())
			}
			if f.id == check.Boundary && !contains(finding.Fix.Summary, "run bootstrap again") {
				s.Errorf("the fix of an old boundary: %s", finding.Fix.Summary)
			}
			if w := a.of(check.Write, "central"); w == nil || w.Status != check.Pass {
				s.Errorf("the writer's write: %+v", w)
			}
			if f.fix != nil {
				f.fix(s)
			} else {
				s.follow(finding.Fix)
			}
			s.readsAndWrites()
		})
	}
}

// permitReader replaces the actions that the reader's permission document allows.
func (s *fixture) permitReader(actions string) {
	s.Helper()
	s.must(s.iam.PutRolePolicy(s.Context(), &iam.PutRolePolicyInput{
		RoleName: &readerRole, PolicyName: new("ampbridge"),
		PolicyDocument: new(fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":[%s],"Resource":%q}]}`,
			actions, s.workspace.ARN)),
	}))
}

// readsAndWrites expects that the reader only reads and the writer only writes. It compares
// doctor's report, and the calls that AWS got.
func (s *fixture) readsAndWrites() {
	s.Helper()
	before := len(s.cloud.Calls())
	a := s.runDoctor(fault{})
	if len(a.Failed) != 0 {
		s.Fatalf("failed: %v\n%s", a.Failed, a.text())
	}
	if f := a.of(check.Read, "reader"); f == nil || f.Status != check.Pass {
		s.Errorf("the reader's read: %+v", f)
	}
	if f := a.of(check.Write, "reader"); f == nil || !f.Excluded || !contains(f.Message, "for queries alone") {
		s.Errorf("the reader's write: %+v", f)
	}
	if f := a.of(check.Write, "central"); f == nil || f.Status != check.Pass {
		s.Errorf("the writer's write: %+v", f)
	}
	if f := a.of(check.Read, "central"); f != nil {
		s.Errorf("the writer's read: %+v", f)
	}
	asked := map[string]int{}
	for _, call := range s.cloud.Calls()[before:] {
		for name, role := range map[string]string{"reader": readerRole, "writer": roleName} {
			if call.Service == "aps" && strings.Contains(call.Principal, "/"+role+"/") {
				asked[fmt.Sprintf("%s %s %d", name, call.Action, call.Status/100)]++
			}
		}
	}
	if len(asked) != 2 || asked["reader QueryMetrics 2"] == 0 || asked["writer RemoteWrite 2"] == 0 {
		s.Errorf("AMP was asked: %v", asked)
	}
}
