package webhooktest

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// Rights returns the permissions that the webhook needs for the reviews of pods and
// policies, as the chart grants them.
func Rights() cluster.Rights {
	return cluster.Rights{
		Cluster: []rbacv1.PolicyRule{
			Allow("get", "serviceaccounts"),
			Allow("list", "limitranges", "resourcequotas"),
		},
		Namespace: []rbacv1.PolicyRule{
			AllowNamed(breaker.ConfigMap, "configmaps", "get"),
			AllowNamed(webhook.AcceptedConfigMap, "configmaps", "get", "update"),
		},
	}
}

// Allow returns the rule that allows a verb for resources of the core API.
func Allow(verb string, resources ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: resources, Verbs: []string{verb}}
}

// AllowNamed returns the rule that allows verbs for one object of the core API.
func AllowNamed(name, resource string, verbs ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{
		APIGroups: []string{""}, Resources: []string{resource}, ResourceNames: []string{name}, Verbs: verbs,
	}
}

// Identity creates a service account with exactly these rights, and returns its client
// configuration.
func Identity(t testing.TB, c *cluster.Cluster, namespace, name string, rights cluster.Rights) *rest.Config {
	t.Helper()
	testkit.Must(t, c.Identity(t.Context(), namespace, name, rights))
	return As(t, c, namespace, name)
}

// As returns the client configuration of a service account.
func As(t testing.TB, c *cluster.Cluster, namespace, name string) *rest.Config {
	t.Helper()
	config, err := c.As(t.Context(), namespace, name)
	testkit.Must(t, err)
	return config
}

// Namespace creates a namespace where injection is enabled, with these service accounts.
func Namespace(t testing.TB, c *cluster.Cluster, name string, serviceAccounts ...string) {
	t.Helper()
	enabled := map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}
	testkit.Must(t, c.Namespace(t.Context(), name, enabled))
	for _, account := range serviceAccounts {
		testkit.Must(t, c.ServiceAccount(t.Context(), name, account))
	}
}

// EventuallyInjects waits until the API server would inject such a pod. It sees a new
// registration only after a moment.
func EventuallyInjects(t testing.TB, c *cluster.Cluster, namespace string, pod corev1.PodSpec) {
	t.Helper()
	probe := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: pod}
	testkit.Eventually(t, "the webhook injects", func() bool {
		admitted, err := c.Client().CoreV1().Pods(namespace).Create(t.Context(), probe,
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		testkit.Must(t, err)
		return Injected(admitted)
	})
}
