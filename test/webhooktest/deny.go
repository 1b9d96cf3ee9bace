package webhooktest

import (
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// DenyPods creates a ValidatingAdmissionPolicy, and a binding of the same name: new pods
// of the namespaces must satisfy the policy's validations. nil means all namespaces. The
// API server sees the policy only after a moment.
func DenyPods(
	t testing.TB,
	c *cluster.Cluster,
	name string,
	namespaces *metav1.LabelSelector,
	policy admissionv1.ValidatingAdmissionPolicySpec,
) {
	t.Helper()
	client, meta := c.Client().AdmissionregistrationV1(), metav1.ObjectMeta{Name: name}
	policy.MatchConstraints = &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
		RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
		},
	}}}
	_, err := client.ValidatingAdmissionPolicies().Create(
		t.Context(), &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: policy}, metav1.CreateOptions{})
	testkit.Must(t, err)
	binding := admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}
	if namespaces != nil {
		binding.MatchResources = &admissionv1.MatchResources{NamespaceSelector: namespaces}
	}
	_, err = client.ValidatingAdmissionPolicyBindings().Create(
		t.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: binding}, metav1.CreateOptions{})
	testkit.Must(t, err)
}
