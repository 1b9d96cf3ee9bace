package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// pageSize is the largest number of objects per list call.
const pageSize = 500

// InjectionSelector selects the namespaces for which the API server calls the webhook.
const InjectionSelector = policy.LabelInjection + " in (" + string(policy.InjectionEnabled) + "," + string(policy.InjectionAnnotated) + ")"

// LabelCommand returns the command that lets the webhook see the pods of a namespace. current is
// the namespace's label; empty if it has none.
func LabelCommand(namespace, current string) string {
	overwrite := ""
	if current != "" {
		overwrite = "--overwrite "
	}
	return fmt.Sprintf("kubectl label %snamespace %s %s=%s", overwrite, namespace, policy.LabelInjection, policy.InjectionEnabled)
}

// Cluster is a connection to a cluster.
type Cluster struct {
	Config *rest.Config
	Client kubernetes.Interface
}

// Connect connects with the kubeconfig, as [Config] reads it.
func Connect(kubeconfig string, overrides Overrides) (Cluster, error) {
	return ConnectWithin(0, kubeconfig, overrides)
}

// ConnectWithin is [Connect] with a limit for the time of each request; 0: none. The flag
// --request-timeout wins over it.
func ConnectWithin(timeout time.Duration, kubeconfig string, overrides Overrides) (Cluster, error) {
	cfg, err := Config(kubeconfig, overrides)
	if err != nil {
		return Cluster{}, err
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, timeout)
	// No client-side limit is needed: these are few calls, and the API server limits them itself.
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	return Cluster{cfg, client}, err
}

// Observe returns what a plan depends on: the cluster's issuer, as [Cluster.Issuer]
// returns it, and the service accounts of labelled namespaces.
func (c Cluster) Observe(ctx context.Context, expected policy.Issuer) (policy.Issuer, []plan.ServiceAccount, error) {
	issuer, err := c.Issuer(ctx, expected)
	if err != nil {
		return "", nil, err
	}
	accounts, err := c.ServiceAccounts(ctx)
	return issuer, accounts, err
}

// OtherIssuerError is the error of [Cluster.Issuer] if the API server names another issuer than the
// policy.
type OtherIssuerError struct{ Policy, Cluster policy.Issuer }

func (e OtherIssuerError) Error() string {
	return fmt.Sprintf("cluster.issuer is %q, but this cluster's is %q: they must be the same byte for byte; remove cluster.issuer, or "+
		"use the kubeconfig of the other cluster", e.Policy, e.Cluster)
}

// Issuer returns the issuer that the API server names. It fails with an [OtherIssuerError] if the
// policy expects another one, because roles would then trust tokens of another cluster.
// An empty expected issuer is not compared.
func (c Cluster) Issuer(ctx context.Context, expected policy.Issuer) (policy.Issuer, error) {
	const path = "/.well-known/openid-configuration"
	data, err := c.Client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf(
			"the cluster's issuer: %s: %w (the ClusterRole system:service-account-issuer-discovery allows reading it)",
			path,
			err,
		)
	}
	var document struct {
		Issuer policy.Issuer `json:"issuer"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return "", fmt.Errorf("the cluster's issuer: %s: %w", path, err)
	}
	if expected != "" && expected != document.Issuer {
		return "", OtherIssuerError{expected, document.Issuer}
	}
	if err := document.Issuer.Validate(); err != nil {
		return "", fmt.Errorf("the cluster's issuer: %w", err)
	}
	return document.Issuer, nil
}

// ServiceAccounts returns the service accounts of the labelled namespaces. They
// keep the annotation with their role, for the commands that report it.
func (c Cluster) ServiceAccounts(ctx context.Context) ([]plan.ServiceAccount, error) {
	var namespaces []corev1.Namespace
	err := listPages(func(o metav1.ListOptions) (string, error) {
		o.LabelSelector = InjectionSelector
		list, err := c.Client.CoreV1().Namespaces().List(ctx, o)
		if err != nil {
			return "", fmt.Errorf("list the labelled namespaces: %w", err)
		}
		namespaces = append(namespaces, list.Items...)
		return list.Continue, nil
	})
	if err != nil {
		return nil, err
	}
	var accounts []plan.ServiceAccount
	for _, ns := range namespaces {
		err := listPages(func(o metav1.ListOptions) (string, error) {
			list, err := c.Client.CoreV1().ServiceAccounts(ns.Name).List(ctx, o)
			if err != nil {
				return "", fmt.Errorf("list the service accounts of namespace %s: %w", ns.Name, err)
			}
			for _, sa := range list.Items {
				accounts = append(accounts, plan.ServiceAccount{
					Namespace:   sa.Namespace,
					Injection:   policy.Injection(ns.Labels[policy.LabelInjection]),
					Name:        sa.Name,
					Annotations: RequestAnnotations(sa.Annotations, policy.AnnotationRoleARN),
					Created:     sa.CreationTimestamp.Time,
				})
			}
			return list.Continue, nil
		})
		if err != nil {
			return nil, err
		}
	}
	return accounts, nil
}

// maxRequest is the largest annotation in bytes, enough for some hundred destinations.
// Kubernetes would allow 256 KiB in each service account of a tenant.
const maxRequest = 8 << 10

// RequestAnnotations returns the annotations with which a service account asks for
// something, and those that more names. A value that is too long is replaced by
// an invalid one, which is handled like any other mistake.
func RequestAnnotations(annotations map[string]string, more ...string) map[string]string {
	var kept map[string]string
	for _, name := range append([]string{policy.AnnotationInject, policy.AnnotationDestinations}, more...) {
		if value, found := annotations[name]; found {
			if kept == nil {
				kept = map[string]string{}
			}
			if len(value) > maxRequest {
				value = "(too long)"
			}
			kept[name] = value
		}
	}
	return kept
}

// PodOf returns the name of a pod of the subject that runs or is about to run; empty if
// there is none.
func (c Cluster) PodOf(ctx context.Context, s policy.Subject) (string, error) {
	list, err := c.Client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.AndSelectors(
			fields.OneTermEqualSelector("spec.serviceAccountName", s.ServiceAccount), running,
		).String(),
		Limit: 1,
	})
	if err != nil || len(list.Items) == 0 {
		return "", err
	}
	return list.Items[0].Name, nil
}

// EachPod calls see for each pod of the namespace that runs or is about to run. An empty
// namespace means all namespaces. At most one page of pods is in memory.
func (c Cluster) EachPod(ctx context.Context, namespace string, see func(*corev1.Pod) error) error {
	return listPages(func(o metav1.ListOptions) (string, error) {
		o.FieldSelector = running.String()
		list, err := c.Client.CoreV1().Pods(namespace).List(ctx, o)
		if err != nil {
			return "", fmt.Errorf("list the pods: %w", err)
		}
		for i := range list.Items {
			if err := see(&list.Items[i]); err != nil {
				return "", err
			}
		}
		return list.Continue, nil
	})
}

// running selects the pods that have not ended.
var running = fields.AndSelectors(
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
	fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
)

// listPages calls list until it returns no next page.
func listPages(list func(metav1.ListOptions) (next string, err error)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		next, err := list(options)
		if err != nil || next == "" {
			return err
		}
		options.Continue = next
	}
}
