package webhook

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// Cluster is what the webhook reads of the cluster, live, for one pod.
type Cluster interface {
	// ServiceAccount returns the annotations of a service account.
	ServiceAccount(ctx context.Context, namespace, name string) (annotations map[string]string, err error)
	// LimitRanges and ResourceQuotas bound the resources of a namespace's
	// containers.
	LimitRanges(ctx context.Context, namespace string) ([]corev1.LimitRange, error)
	ResourceQuotas(ctx context.Context, namespace string) ([]corev1.ResourceQuota, error)
}

// Kubernetes is the real [Cluster]. Its identity needs to get serviceaccounts
// and to list limitranges and resourcequotas, in every namespace that may be
// labelled.
func Kubernetes(config *rest.Config) (Cluster, error) {
	config = rest.CopyConfig(config)
	// A limit on the client's side would make a burst of pods wait for one
	// another; the API server has a fair one of its own.
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = "ampbridge-webhook"
	client, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return Reader(client), nil
}

// Reader is the [Cluster] that a client reads.
func Reader(client corev1client.CoreV1Interface) Cluster { return kubernetes{client} }

type kubernetes struct{ client corev1client.CoreV1Interface }

// ServiceAccount names no resource version, so it sees every write that came
// before: a pod may be created as soon as its service account is.
func (k kubernetes) ServiceAccount(ctx context.Context, namespace, name string) (map[string]string, error) {
	account, err := k.client.ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read service account %s of namespace %s: %w", name, namespace, err)
	}
	return account.Annotations, nil
}

// fromCache has the API server list out of its memory. That is as fresh as the
// informers of its own LimitRange and ResourceQuota plugins, which are to be
// satisfied; a newer list would have it wait for etcd.
var fromCache = metav1.ListOptions{ResourceVersion: "0"}

func (k kubernetes) LimitRanges(ctx context.Context, namespace string) ([]corev1.LimitRange, error) {
	list, err := k.client.LimitRanges(namespace).List(ctx, fromCache)
	if err != nil {
		return nil, fmt.Errorf("list the LimitRanges of namespace %s: %w", namespace, err)
	}
	return list.Items, nil
}

func (k kubernetes) ResourceQuotas(ctx context.Context, namespace string) ([]corev1.ResourceQuota, error) {
	list, err := k.client.ResourceQuotas(namespace).List(ctx, fromCache)
	if err != nil {
		return nil, fmt.Errorf("list the ResourceQuotas of namespace %s: %w", namespace, err)
	}
	return list.Items, nil
}
