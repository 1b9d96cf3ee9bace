package webhook

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"runtime/debug"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

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

// What look-ups may hold in memory at one time.
const (
	// maxAnswer bounds what the API server answers to one look-up, in bytes.
	// Annotations have up to 256 KiB.
	maxAnswer = 320 << 10
	// maxBreaker bounds the ConfigMap of the circuit breaker, in bytes: what etcd takes.
	maxBreaker = 3 << 19
)

// Kubernetes is the real [Cluster]. Its identity needs to get serviceaccounts
// and to list limitranges and resourcequotas, in every namespace that may be
// labelled. It asks for the metadata of service accounts only: their lists of
// Secrets can be long, and tenants write them.
func Kubernetes(config *rest.Config) (Cluster, error) {
	config = connection(config, maxAnswer)
	client, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	accounts, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return kubernetes{
		client:  client,
		lookups: newLookups(),
		account: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return accounts.Resource(
				corev1.SchemeGroupVersion.WithResource("serviceaccounts"),
			).Namespace(
				namespace,
			).Get(
				ctx,
				name,
				metav1.GetOptions{},
			)
		},
	}, nil
}

// connection is the configuration with the webhook's own settings, for answers of
// at most limit bytes.
func connection(config *rest.Config, limit int64) *rest.Config {
	config = rest.CopyConfig(config)
	// A limit on the client's side would make a burst of pods wait for one
	// another; the API server has a fair one of its own.
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = "ampbridge-webhook"
	// Compressed, an answer of a few bytes could be a large one.
	config.DisableCompression = true
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return boundedAnswers{next, limit} })
	return config
}

// boundedAnswers makes answers fail that are longer than limit bytes.
type boundedAnswers struct {
	next  http.RoundTripper
	limit int64
}

func (b boundedAnswers) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil {
		answer.Body = http.MaxBytesReader(nil, answer.Body, b.limit)
	}
	return answer, err
}

// WrappedRoundTripper is for client-go.
func (b boundedAnswers) WrappedRoundTripper() http.RoundTripper { return b.next }

// NewCluster is the [Cluster] that a client reads.
func NewCluster(client corev1client.CoreV1Interface) Cluster {
	return kubernetes{
		client:  client,
		lookups: newLookups(),
		account: func(ctx context.Context, namespace, name string) (metav1.Object, error) {
			return client.ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		},
	}
}

type kubernetes struct {
	client  corev1client.CoreV1Interface
	account func(ctx context.Context, namespace, name string) (metav1.Object, error)
	lookups *lookups
}

// ServiceAccount names no resource version, so it sees every write that came
// before: a pod may be created as soon as its service account is.
func (k kubernetes) ServiceAccount(ctx context.Context, namespace, name string) (map[string]string, error) {
	done, err := k.lookups.take(ctx, namespace)
	if err != nil {
		return nil, err
	}
	defer done()
	return k.annotations(ctx, namespace, name)
}

func (k kubernetes) annotations(ctx context.Context, namespace, name string) (map[string]string, error) {
	account, err := k.account(ctx, namespace, name)
	if err != nil {
		return nil, fmt.Errorf("read service account %s of namespace %s: %w", name, namespace, err)
	}
	return account.GetAnnotations(), nil
}

// ServiceAccountAndLimits reads the three side by side.
func (k kubernetes) ServiceAccountAndLimits(
	ctx context.Context,
	namespace, name string,
) (annotations map[string]string, limits inject.Limits, err error) {
	done, err := k.lookups.take(ctx, namespace)
	if err != nil {
		return nil, limits, err
	}
	defer done()
	var group errgroup.Group
	group.Go(guard(func() (err error) {
		limits.Ranges, err = k.limitRanges(ctx, namespace)
		return err
	}))
	group.Go(guard(func() (err error) {
		limits.Quotas, err = k.resourceQuotas(ctx, namespace)
		return err
	}))
	annotations, err = k.annotations(ctx, namespace, name)
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
