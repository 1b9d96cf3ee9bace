package webhook

import (
	"cmp"
	"context"
	"fmt"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/audit/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Cluster is what the webhook reads of the cluster, live, for one pod.
type Cluster interface {
	// ServiceAccount returns the annotations of a service account.
	ServiceAccount(ctx context.Context, namespace, name string) (annotations map[string]string, err error)
	// ServiceAccountAndLimits returns also what bounds the resources of the
	// namespace's containers.
	ServiceAccountAndLimits(ctx context.Context, namespace, name string) (annotations map[string]string, limits inject.Limits, err error)
}

// Kubernetes is the real [Cluster]. Its identity needs to get serviceaccounts
// and to list limitranges and resourcequotas, in every namespace that may be
// labelled.
func Kubernetes(config *rest.Config) (Cluster, error) {
	client, err := connect(config)
	if err != nil {
		return nil, err
	}
	return Reader(client), nil
}

// BreakerIn reads the circuit breaker's state in a namespace, live. It needs to
// get the ConfigMap [breaker.ConfigMap] there.
func BreakerIn(config *rest.Config, namespace string) (func(context.Context) (breaker.State, error), error) {
	client, err := connect(config)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (breaker.State, error) {
		return breaker.Read(ctx, client.ConfigMaps(namespace))
	}, nil
}

func connect(config *rest.Config) (corev1client.CoreV1Interface, error) {
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
	return client, nil
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

// ServiceAccountAndLimits reads the three side by side.
func (k kubernetes) ServiceAccountAndLimits(ctx context.Context, namespace, name string) (annotations map[string]string, limits inject.Limits, err error) {
	var group errgroup.Group
	group.Go(guard(func() (err error) {
		limits.Ranges, err = k.limitRanges(ctx, namespace)
		return err
	}))
	group.Go(guard(func() (err error) {
		limits.Quotas, err = k.resourceQuotas(ctx, namespace)
		return err
	}))
	annotations, err = k.ServiceAccount(ctx, namespace, name)
	return annotations, limits, cmp.Or(err, group.Wait())
}

// fromCache has the API server list out of its memory. That is as fresh as the
// informers of its own LimitRange and ResourceQuota plugins, which are to be
// satisfied; a newer list would have it wait for etcd.
var fromCache = metav1.ListOptions{ResourceVersion: "0"}

func (k kubernetes) limitRanges(ctx context.Context, namespace string) ([]corev1.LimitRange, error) {
	list, err := k.client.LimitRanges(namespace).List(ctx, fromCache)
	if err != nil {
		return nil, fmt.Errorf("list the LimitRanges of namespace %s: %w", namespace, err)
	}
	return list.Items, nil
}

func (k kubernetes) resourceQuotas(ctx context.Context, namespace string) ([]corev1.ResourceQuota, error) {
	list, err := k.client.ResourceQuotas(namespace).List(ctx, fromCache)
	if err != nil {
		return nil, fmt.Errorf("list the ResourceQuotas of namespace %s: %w", namespace, err)
	}
	return list.Items, nil
}

// panicked is a panic in a goroutine, on its way to the one that answers.
type panicked struct{ error }

// guard keeps a panic in a look-up from ending the process.
func guard(look func() error) func() error {
	return func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = panicked{fmt.Errorf("%v\n%s", p, debug.Stack())}
			}
		}()
		return look()
	}
}
