package doctor_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

// With trust.roleScope: serviceAccount, each of two service accounts has its own role. The rows
// break the role of the second one.
var (
	first      = policy.Subject{Namespace: namespace, ServiceAccount: serviceAccount}
	second     = policy.Subject{Namespace: namespace, ServiceAccount: "second"}
	ownRole    = policy.ServiceAccountRoleName("demo", "central", first)
	secondsOwn = policy.ServiceAccountRoleName("demo", "central", second)
)

var scopeFaults = []fault{
	{
		name:    "another's subject",
		id:      check.TrustDocument,
		message: "lets in " + first.String() + ", and not " + second.String(),
		inject:  trustFirst,
	},
	{
		name:    "role missing",
		id:      check.RoleExists,
		message: "there is no role arn:aws:iam::" + accountID + ":role/ampbridge/demo/" + secondsOwn,
		inject:  deleteSecondsOwn,
	},
	{name: "another's subject, no sync", id: check.TrustDocument, message: "and not " + second.String(), inject: func(s *fixture) {
		s.setPolicy(eachItsOwn("trust:\n", "trust:\n  manage: none\n")...)
		trustFirst(s)
	}},
	{name: "permission document missing, no sync", id: check.Permissions, message: "nothing in it", inject: func(s *fixture) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &secondsOwn, PolicyName: aws.String("ampbridge")}))
	}},
	// This is the last row, because sync does not manage the role that its fix creates.
	{name: "role missing, no sync", id: check.RoleExists, message: "there is no role", inject: deleteSecondsOwn},
}

// eachItsOwn are the replacements in the policy that give both service accounts their own role.
func eachItsOwn(more ...string) []string {
	return append([]string{"serviceAccounts: [" + serviceAccount + "]", "serviceAccounts: [" + serviceAccount + ", second]",
		"  permissionsBoundary:", "  roleScope: serviceAccount\n  permissionsBoundary:"}, more...)
}

func trustFirst(s *fixture) {
	s.must(s.iam.UpdateAssumeRolePolicy(s.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &secondsOwn, PolicyDocument: aws.String(
		policy.TrustDocument(
			policy.Issuer(issuerURL).ProviderARN("aws", accountID),
			issuerURL,
			"sts.amazonaws.com",
			[]policy.Subject{first},
		).String(),
	)}))
}

func deleteSecondsOwn(s *fixture) {
	s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &secondsOwn, PolicyName: aws.String("ampbridge")}))
	s.must(s.iam.DeleteRole(s.Context(), &iam.DeleteRoleInput{RoleName: &secondsOwn}))
}

func (s *fixture) roleForEach() {
	accounts := s.kube.Client().CoreV1().ServiceAccounts(namespace)
	s.must(
		accounts.Create(
			s.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: second.ServiceAccount}},
			metav1.CreateOptions{},
		),
	)
	s.setPolicy(eachItsOwn()...)
	s.webhookPolicy(s.policy(eachItsOwn()...))
	s.sync()
	s.eventually("the webhook grants both", func() bool { return s.runDoctor(fault{}).Status(check.Injection) == check.Pass })
	s.healthy(fault{})
	a := s.runDoctor(fault{})
	for _, id := range []check.ID{check.RoleExists, check.TrustDocument, check.Permissions, check.Boundary, check.Session, check.Write} {
		for subject, role := range map[policy.Subject]string{first: ownRole, second: secondsOwn} {
			i := slices.IndexFunc(a.Findings, func(f check.Finding) bool {
				return f.ID == id && f.About == check.About{Subject: subject.String(), Destination: "central", Account: accountID}
			})
			if i < 0 || (id == check.RoleExists || id == check.Session) && !contains(a.Findings[i].Message, "/"+role) {
				s.Errorf("%s has no finding with %s of %s\n%s", id, role, subject, a.text())
			}
		}
	}
	s.setPolicy(
		eachItsOwn("grants:\n", fmt.Sprintf("- {name: idle, workspace: %q, endpoint: %q}\ngrants:\n", s.workspace.ARN, s.cloud.URL))...)
	if a = s.runDoctor(fault{}); a.status != unchecked || !slices.ContainsFunc(a.Findings, func(f check.Finding) bool {
		return f.ID == check.RoleExists && f.Status == check.Skip && f.Excluded &&
			f.About == check.About{Destination: "idle", Account: accountID}
	}) {
		s.Errorf("a destination that is granted to no service account: status %d\n%s", a.status, a.text())
	}
	s.setPolicy(eachItsOwn()...)
	for _, f := range scopeFaults {
		f.subject = second
		if !s.Run(f.name, func(t *testing.T) { s.in(t).act(f) }) {
			s.Fatal("the next rows would start from a failed check")
		}
	}
	s.try(accounts.Delete(s.Context(), second.ServiceAccount, metav1.DeleteOptions{}))
	deleteSecondsOwn(s)
	s.setPolicy()
	s.webhookPolicy(s.policy())
	s.sync()
	s.healthy(fault{})
}
