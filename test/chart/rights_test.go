package chart

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func (f *fixture) testWebhookRights(t *testing.T) {
	const account = "ampbridge-webhook"
	c := f.testAccount(t, account)
	configMaps := c.CoreV1().ConfigMaps(namespace)
	allowed(t, map[string]call{
		"read a service account anywhere": tryGet(c.CoreV1().ServiceAccounts("monitoring").Get, "default"),
		"list limit ranges anywhere":      tryList(c.CoreV1().LimitRanges("monitoring").List),
		"list quotas anywhere":            tryList(c.CoreV1().ResourceQuotas("monitoring").List),
		"read the circuit breaker":        tryGet(c.CoreV1().ConfigMaps(namespace).Get, "ampbridge-breaker"),
		"keep a copy of the policy":       tryRewrite(configMaps.Get, configMaps.Update, "ampbridge-policy-accepted"),
	})
	// Its certificate and its CA bundle it has written already. A Secret that
	// somebody deletes is made again, under its name and no other.
	testkit.Must(t, applySecret(c, "ampbridge-webhook-tls")(t.Context()))
	f.forbidden(t, account, map[string]call{
		"list service accounts":            tryList(c.CoreV1().ServiceAccounts("").List),
		"read a pod":                       tryGet(c.CoreV1().Pods("monitoring").Get, "any"),
		"open the circuit breaker":         tryUpdate(c.CoreV1().ConfigMaps(namespace).Update, configMap("ampbridge-breaker")),
		"apply another secret":             applySecret(c, "other"),
		"delete its registration":          tryDelete(c.AdmissionregistrationV1().MutatingWebhookConfigurations().Delete, "ampbridge"),
		"delete the policy's registration": tryDelete(c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Delete, "ampbridge"),
		"change another's validating webhook": tryPatch(
			c.AdmissionregistrationV1().ValidatingWebhookConfigurations().Patch, "other", `{"webhooks":[]}`),
		"delete the copy of the policy": tryDelete(c.CoreV1().ConfigMaps(namespace).Delete, "ampbridge-policy-accepted"),
		"evict a pod":                   evict(c, "monitoring"),
	})
	f.testRegistrationFields(t, c)
}

// testRegistrationFields: RBAC lets the webhook patch its registrations, and the
// admission policy lets it change caBundle alone. The policy may be in force only a
// moment after it is made.
func (f *fixture) testRegistrationFields(t *testing.T, c kubernetes.Interface) {
	patch := func(kind, text string) error {
		options := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
		registrations, err := c.AdmissionregistrationV1(), error(nil)
		if kind == "mutating" {
			_, err = registrations.MutatingWebhookConfigurations().Patch(t.Context(), "ampbridge", types.JSONPatchType, []byte(text), options)
		} else {
			_, err = registrations.ValidatingWebhookConfigurations().Patch(t.Context(), "ampbridge", types.JSONPatchType, []byte(text), options)
		}
		return err
	}
	fields := map[string]string{
		"failurePolicy":     `{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}`,
		"rules":             `{"op":"replace","path":"/webhooks/0/rules/0/resources/0","value":"secrets"}`,
		"url":               `{"op":"replace","path":"/webhooks/0/clientConfig","value":{"url":"https://example.com"}}`,
		"service":           `{"op":"replace","path":"/webhooks/0/clientConfig/service/name","value":"other"}`,
		"namespaceSelector": `{"op":"remove","path":"/webhooks/0/namespaceSelector"}`,
		"objectSelector":    `{"op":"add","path":"/webhooks/0/objectSelector","value":{"matchLabels":{"a":"b"}}}`,
		"matchConditions":   `{"op":"remove","path":"/webhooks/0/matchConditions"}`,
		"timeoutSeconds":    `{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":29}`,
		"a webhook less":    `{"op":"remove","path":"/webhooks/0"}`,
		"a label":           `{"op":"add","path":"/metadata/labels/team","value":"a"}`,
		"an annotation":     `{"op":"add","path":"/metadata/annotations/team","value":"a"}`,
		"a finalizer":       `{"op":"add","path":"/metadata/finalizers","value":["example.com/a"]}`,
	}
	testkit.EventuallyEmpty(t, func() string {
		if err := patch("mutating", "["+fields["failurePolicy"]+"]"); !apierrors.IsForbidden(err) {
			return fmt.Sprintf("the webhook changes failurePolicy: %v", err)
		}
		return ""
	})
	const bundle = `{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":""}`
	for _, kind := range []string{"mutating", "validating"} {
		if err := patch(kind, "["+bundle+"]"); err != nil {
			t.Errorf("the webhook cannot write caBundle of the %s registration: %v", kind, err)
		}
		for field, text := range fields {
			if err := patch(kind, "["+bundle+","+text+"]"); !apierrors.IsForbidden(err) {
				t.Errorf("the webhook may change %s of the %s registration: %v", field, kind, err)
			}
		}
	}
	reinvocation := `[{"op":"replace","path":"/webhooks/0/reinvocationPolicy","value":"Never"}]`
	if err := patch("mutating", reinvocation); !apierrors.IsForbidden(err) {
		t.Errorf("the webhook may change reinvocationPolicy: %v", err)
	}
}

func (f *fixture) testSyncRights(t *testing.T) {
	const account = "ampbridge-sync"
	c := f.testAccount(t, account)
	leases := c.CoordinationV1().Leases(namespace)
	allowed(t, map[string]call{
		"list namespaces": tryList(c.CoreV1().Namespaces().List),
		"watch service accounts": func(ctx context.Context) error {
			w, err := c.CoreV1().ServiceAccounts("").Watch(ctx, metav1.ListOptions{})
			if err == nil {
				w.Stop()
			}
			return err
		},
		"list pods": tryList(c.CoreV1().Pods("monitoring").List),
		"read the issuer": func(ctx context.Context) error {
			return c.Discovery().RESTClient().Get().AbsPath("/.well-known/openid-configuration").Do(ctx).Error()
		},
		"write an event": func(ctx context.Context) error {
			_, err := c.CoreV1().Events("monitoring").Create(ctx, &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{GenerateName: "test-"},
				InvolvedObject: corev1.ObjectReference{Kind: "ServiceAccount", Namespace: "monitoring", Name: "default"},
			}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			return err
		},
		"create its Lease where it is gone": applyLease(c, "ampbridge-sync"),
		"hold its Lease":                    tryRewrite(leases.Get, leases.Update, "ampbridge-sync"),
	})
	// The eviction is allowed: there is only no such pod.
	if err := evict(c, "monitoring")(t.Context()); !apierrors.IsNotFound(err) {
		t.Errorf("evict a pod that is not there: %v", err)
	}
	// Here the namespace has no label.
	testkit.EventuallyEmpty(t, func() string {
		if err := evict(c, "other-system")(t.Context()); !apierrors.IsForbidden(err) {
			return fmt.Sprintf("sync evicts without the namespace's label: %v", err)
		}
		return ""
	})
	f.forbidden(t, account, map[string]call{
		"read the webhook's key":            tryGet(c.CoreV1().Secrets(namespace).Get, "ampbridge-webhook-tls"),
		"change the webhook's registration": patchRegistration(c, "ampbridge"),
		"apply another Lease":               applyLease(c, "other"),
		"take another Lease":                tryCreate(leases.Create, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "other"}}),
		"delete a pod, budgets or not":      tryDelete(c.CoreV1().Pods("monitoring").Delete, "any"),
		"delete its memory":                 tryDelete(c.CoreV1().ConfigMaps(namespace).Delete, "ampbridge-sync"),
	})
}

// testAccount tests what holds for both accounts, and returns a client of this one.
func (f *fixture) testAccount(t *testing.T, account string) kubernetes.Interface {
	f.goldenRights(t, account)
	f.testForbidden(t, account)
	return f.as(t, account)
}

// testForbidden tries what neither account may: the ways from here to more.
func (f *fixture) testForbidden(t *testing.T, account string) {
	c := f.as(t, account)
	core, rbac := c.CoreV1(), c.RbacV1()
	impersonating := f.config(t, namespace, account)
	impersonating.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:kube-system:default"}
	other, err := kubernetes.NewForConfig(impersonating)
	testkit.Must(t, err)
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "more"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: account}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "own"},
		Spec:       corev1.PodSpec{ServiceAccountName: "default", Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}
	const wider = `{"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}]}`
	calls := map[string]call{
		"list secrets everywhere":           tryList(core.Secrets("").List),
		"list the secrets of its namespace": tryList(core.Secrets(namespace).List),
		"read helm's secret":                tryGet(core.Secrets(namespace).Get, "sh.helm.release.v1.ampbridge.v1"),
		"create a secret": func(ctx context.Context) error {
			_, err := core.Secrets(
				namespace,
			).Create(
				ctx,
				&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other"}},
				metav1.CreateOptions{},
			)
			return err
		},
		"delete a secret":           tryDelete(core.Secrets(namespace).Delete, "ampbridge-webhook-tls"),
		"change the policy":         tryUpdate(core.ConfigMaps(namespace).Update, configMap("ampbridge-policy")),
		"create a ConfigMap":        tryCreate(core.ConfigMaps(namespace).Create, configMap("other")),
		"read a tenant's ConfigMap": tryGet(core.ConfigMaps("monitoring").Get, "kube-root-ca.crt"),
		"create a pod":              tryCreate(core.Pods(namespace).Create, pod),
		"create a tenant's pod":     tryCreate(core.Pods("monitoring").Create, pod),
		"run a command in a pod": func(ctx context.Context) error {
			return core.RESTClient().Post().Namespace("monitoring").Resource("pods").Name("any").SubResource("exec").Do(ctx).Error()
		},
		"read a pod's log": func(ctx context.Context) error {
			return core.RESTClient().Get().Namespace("monitoring").Resource("pods").Name("any").SubResource("log").Do(ctx).Error()
		},
		"add a debug container": func(ctx context.Context) error {
			_, err := core.Pods("monitoring").UpdateEphemeralContainers(ctx, "any", pod, metav1.UpdateOptions{})
			return err
		},
		"label a namespace": tryPatch(
			core.Namespaces().Patch, "kube-system", `{"metadata":{"labels":{"ampbridge.io/injection":"enabled"}}}`),
		"annotate a service account": tryPatch(core.ServiceAccounts("monitoring").Patch, "default", `{"metadata":{"annotations":{"a":"b"}}}`),
		"create a service account": tryCreate(
			core.ServiceAccounts(namespace).Create, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "other"}}),
		"make a token of its own":   token(c, namespace, account),
		"make a tenant's token":     token(c, "monitoring", "default"),
		"impersonate":               tryList(other.CoreV1().Namespaces().List),
		"bind cluster-admin":        tryCreate(rbac.ClusterRoleBindings().Create, binding),
		"widen its own ClusterRole": tryPatch(rbac.ClusterRoles().Patch, account, wider),
		"widen its own Role":        tryPatch(rbac.Roles(namespace).Patch, account, wider),
		"change its Deployment":     tryPatch(c.AppsV1().Deployments(namespace).Patch, account, `{"spec":{"replicas":0}}`),
		"register a webhook": tryCreate(
			c.AdmissionregistrationV1().MutatingWebhookConfigurations().Create,
			&admissionv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "more"}}),
		"change another webhook's registration": patchRegistration(c, "other"),
		"list registrations":                    tryList(c.AdmissionregistrationV1().MutatingWebhookConfigurations().List),
		"list nodes":                            tryList(core.Nodes().List),
		"reach a kubelet": func(ctx context.Context) error {
			return core.RESTClient().Get().Resource("nodes").Name("any").SubResource("proxy").Do(ctx).Error()
		},
	}
	f.forbidden(t, account, calls)
}

// goldenRights are all rights of an account beyond those that every service
// account has: in its own namespace, and in others.
func (f *fixture) goldenRights(t *testing.T, account string) {
	var b strings.Builder
	for _, in := range []string{namespace, "monitoring"} {
		fmt.Fprintf(&b, "in namespace %s\n", in)
		everybody := f.rights(t, namespace, "default", in)
		for _, right := range slices.Sorted(maps.Keys(f.rights(t, namespace, account, in))) {
			if !everybody[right] {
				fmt.Fprintf(&b, "  %s\n", right)
			}
		}
	}
	testkit.Golden(t, "testdata/"+account+".rights", b.String())
}

// rights are what the API server says that an account may do: a line for each
// verb.
func (f *fixture) rights(t *testing.T, home, account, in string) map[string]bool {
	t.Helper()
	client, err := kubernetes.NewForConfig(f.config(t, home, account))
	testkit.Must(t, err)
	review, err := client.AuthorizationV1().SelfSubjectRulesReviews().Create(t.Context(),
		&authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: in}}, metav1.CreateOptions{})
	testkit.Must(t, err)
	all := map[string]bool{}
	for _, rule := range review.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				name := strings.TrimSuffix(resource+"."+group, ".")
				for _, verb := range rule.Verbs {
					line := verb + " " + name
					if len(rule.ResourceNames) > 0 {
						line += " " + strings.Join(rule.ResourceNames, ",")
					}
					all[line] = true
				}
			}
		}
	}
	for _, rule := range review.Status.NonResourceRules {
		for _, path := range rule.NonResourceURLs {
			for _, verb := range rule.Verbs {
				all[verb+" "+path] = true
			}
		}
	}
	return all
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
}
