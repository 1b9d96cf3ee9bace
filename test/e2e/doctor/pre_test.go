package doctor_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// preChecks are the checks of doctor --pre. It excludes the others.
var preChecks = []check.ID{
	check.Kubernetes, check.Policy, check.IssuerMatches, check.Namespace, check.ServiceAccount, check.Grant,
	check.Registration,
	check.TokenMinted, check.SigningKeys, check.Account, check.OIDCProvider, check.RoleExists, check.Boundary,
	check.Workspace, check.Query,
	check.Pods,
}

// beforeInstallation runs doctor --pre where nothing is installed, with each fault that
// would stop the installation.
func (s *fixture) beforeInstallation() {
	s.createPod("candidate", nil)
	before := len(s.cloud.Calls())
	a := s.pre()
	if a.status != 0 {
		s.Errorf("status %d\n%s", a.status, a.text())
	}
	for _, c := range check.All {
		if slices.Contains(preChecks, c.ID) != (a.Status(c.ID) == check.Pass) {
			s.Errorf("%s is %s\n%s", c.ID, a.Status(c.ID), a.text())
		}
	}
	if !contains(a.text(), "it would be injected, for central: delivery sigv4") ||
		!contains(a.text(), "sync creates 1, and the quota of roles leaves") {
		s.Error(a.text())
	}
	for _, call := range s.cloud.Calls()[before:] {
		if contains(call.Action, "Create") || contains(call.Action, "RemoteWrite") {
			s.Errorf("doctor --pre calls %s", call.Action)
		}
	}
	kubeconfig, err := s.kube.KubeconfigFor(s.Context(), namespace, "default")
	s.try(err)
	for _, c := range []struct {
		name    string
		id      check.ID
		message string
		inject  func(*fixture)
		fix     func(*fixture)
		args    []string
	}{
		{"you may not install", check.Registration, "you may not create mutatingwebhookconfigurations", nil, nil,
			[]string{"--kubeconfig", kubeconfig}},
		{"no label", check.Namespace, "does not carry the label", func(s *fixture) { s.labelNamespace("null") },
			func(s *fixture) { s.labelNamespace(`"enabled"`) }, nil},
		{"a pod without a volume for its configuration", check.Pods, "it would not be injected", func(s *fixture) {
			s.createPod("baked", func(pod *corev1.Pod) {
				pod.Spec.Volumes = nil
				for i := range pod.Spec.Containers {
					pod.Spec.Containers[i].VolumeMounts = nil
				}
			})
		}, func(s *fixture) { s.deletePod("baked") }, nil},
		{"no room for another role", check.RoleExists, "sync creates 1, and the quota of roles leaves 0",
			func(s *fixture) { s.account.SetQuotas(func(q *awstest.Quotas) { q.Roles = 0 }) },
			func(s *fixture) { s.account.SetQuotas(func(q *awstest.Quotas) { q.Roles = 1000 }) }, nil},
		{"bootstrap has not run", check.Boundary, "policy/none cannot be read",
			func(s *fixture) { s.setPolicy("policy/boundary", "policy/none") }, plainPolicy, nil},
		{"the wrong workspace", check.Workspace, "there is no ws-0000",
			func(s *fixture) { s.setPolicy(s.workspace.ID, "ws-0000") }, plainPolicy, nil},
	} {
		s.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			if c.inject != nil {
				c.inject(s)
			}
			a := s.pre(c.args...)
			if !slices.Equal(a.Failed, []check.ID{c.id}) || a.status != 1 || !contains(a.finding().Message, c.message) {
				t.Errorf("failed %v, status %d; want %s (%q)\n%s", a.Failed, a.status, c.id, c.message, a.text())
			}
			if c.fix != nil {
				c.fix(s)
				if a := s.pre(); a.status != 0 {
					t.Errorf("after the fix: status %d\n%s", a.status, a.text())
				}
			}
		})
	}
	s.deletePod("candidate")
}

func (s *fixture) pre(args ...string) answer {
	s.Helper()
	return s.doctor(
		s.environ(),
		append([]string{"--pre", "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig()}, args...)...)
}
