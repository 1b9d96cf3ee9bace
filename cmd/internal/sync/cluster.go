package sync

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/cmd/internal/kubeconfig"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// pageSize bounds what one list call returns.
const pageSize = 500

// injectionSelector selects the namespaces for which the webhook is called.
const injectionSelector = policy.LabelInjection + " in (" + string(policy.InjectionEnabled) + "," + string(policy.InjectionAnnotated) + ")"

// cluster is the Kubernetes side of a run.
type cluster struct {
	config *rest.Config
	client kubernetes.Interface
}

func connect(path string) (cluster, error) {
	cfg, err := kubeconfig.Load(path)
	if err != nil {
		return cluster{}, err
	}
	// The API server's own fairness is limit enough for a handful of lists.
	cfg.QPS = -1
	client, err := kubernetes.NewForConfig(cfg)
	return cluster{cfg, client}, err
}

// Look reads of a cluster what a plan depends on: its issuer, which must be the
// policy's where that names one, and the service accounts of labelled namespaces.
func Look(ctx context.Context, kubeconfig string, p *policy.Policy) (policy.Issuer, []plan.ServiceAccount, error) {
	c, err := connect(kubeconfig)
	if err != nil {
		return "", nil, err
	}
	issuer, err := c.issuer(ctx, p.Cluster.Issuer)
	if err != nil {
		return "", nil, err
	}
	accounts, err := c.serviceAccounts(ctx)
	return issuer, accounts, err
}

// Issuer is the cluster's; where the policy names one, it must be that.
func Issuer(ctx context.Context, kubeconfig string, named policy.Issuer) (policy.Issuer, error) {
	c, err := connect(kubeconfig)
	if err != nil {
		return "", err
	}
	return c.issuer(ctx, named)
}

// issuer is what the API server says of itself. A policy that says otherwise is
// refused: roles would trust tokens of another cluster.
func (c cluster) issuer(ctx context.Context, named policy.Issuer) (policy.Issuer, error) {
	const path = "/.well-known/openid-configuration"
	data, err := c.client.Discovery().RESTClient().Get().AbsPath(path).DoRaw(ctx)
	if err != nil {
		return "", fmt.Errorf("the cluster's issuer: %s: %w (the ClusterRole system:service-account-issuer-discovery allows reading it)", path, err)
	}
	var document struct {
		Issuer policy.Issuer `json:"issuer"`
	}
	if err := json.Unmarshal(data, &document); err != nil {
		return "", fmt.Errorf("the cluster's issuer: %s: %w", path, err)
	}
	if named != "" && named != document.Issuer {
		return "", fmt.Errorf("cluster.issuer is %q, but this cluster's is %q: they must be the same byte for byte; leave cluster.issuer out, or use the kubeconfig of the other cluster", named, document.Issuer)
	}
	if err := document.Issuer.Validate(); err != nil {
		return "", fmt.Errorf("the cluster's issuer: %w", err)
	}
	return document.Issuer, nil
}

// serviceAccounts are those of the labelled namespaces. They keep the role that they
// show, for the commands that report it.
func (c cluster) serviceAccounts(ctx context.Context) ([]plan.ServiceAccount, error) {
	var namespaces []corev1.Namespace
	err := pages(func(o metav1.ListOptions) (string, error) {
		o.LabelSelector = injectionSelector
		list, err := c.client.CoreV1().Namespaces().List(ctx, o)
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
		err := pages(func(o metav1.ListOptions) (string, error) {
			list, err := c.client.CoreV1().ServiceAccounts(ns.Name).List(ctx, o)
			if err != nil {
				return "", fmt.Errorf("list the service accounts of namespace %s: %w", ns.Name, err)
			}
			for _, sa := range list.Items {
				accounts = append(accounts, plan.ServiceAccount{
					Namespace: sa.Namespace, Injection: policy.Injection(ns.Labels[policy.LabelInjection]),
					Name: sa.Name, Annotations: asked(sa.Annotations, policy.AnnotationRoleARN), Created: sa.CreationTimestamp.Time,
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

// podOf names a pod of the subject that runs, or is about to; empty: there is
// none.
func (c cluster) podOf(ctx context.Context, s policy.Subject) (string, error) {
	list, err := c.client.CoreV1().Pods(s.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.AndSelectors(
			fields.OneTermEqualSelector("spec.serviceAccountName", s.ServiceAccount),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
			fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
		).String(),
		Limit: 1,
	})
	if err != nil || len(list.Items) == 0 {
		return "", err
	}
	return list.Items[0].Name, nil
}

// pages calls list until it returns no more.
func pages(list func(metav1.ListOptions) (next string, err error)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		next, err := list(options)
		if err != nil || next == "" {
			return err
		}
		options.Continue = next
	}
}
