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

// Cluster reads from the cluster, without a cache, what the webhook needs for one pod.
type Cluster interface {
	// ServiceAccount returns the annotations of a service account.
	ServiceAccount(ctx context.Context, namespace, name string) (annotations map[string]string, err error)
	// ServiceAccountAndLimits also returns the namespace's limits on container resources.
	ServiceAccountAndLimits(ctx context.Context, namespace, name string) (annotations map[string]string, limits inject.Limits, err error)
}

// Memory limits of the look-ups.
const (
	// maxAnswer limits the API server's answer to one look-up, in bytes. Annotations can have 256
	// KiB.
	maxAnswer = 320 << 10
	// maxBreaker limits the ConfigMap of the circuit breaker, in bytes. etcd accepts no larger
	// object.
	maxBreaker = 3 << 19
)

// Kubernetes returns the [Cluster] for production. Its identity needs permission to get
// serviceaccounts and to list limitranges and resourcequotas in every namespace that may have the
// label. It reads only the metadata of service accounts: their lists of Secrets can be long, and
// tenants control them.
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
			resource := accounts.Resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts"))
			return resource.Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		},
	}, nil
}

// connection returns a copy of the configuration with the webhook's own settings. Answers may have
// at most limit bytes.
func connection(config *rest.Config, limit int64) *rest.Config {
	config = rest.CopyConfig(config)
	// A limit of the client would make the pods of a burst wait for each other. The API server has
	// its own, fair limit.
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = "ampbridge-webhook"
	// Without compression a small answer cannot expand into a large one.
	config.DisableCompression = true
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return boundedAnswers{next, limit} })
	return config
}

// boundedAnswers returns an error for an answer that has more than limit bytes.
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

// WrappedRoundTripper lets client-go find the wrapped transport.
func (b boundedAnswers) WrappedRoundTripper() http.RoundTripper { return b.next }

// NewCluster returns a [Cluster] that reads with the client.
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

// ServiceAccount sets no resource version, so it sees every earlier write. A pod may be created
// immediately after its service account.
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

// ServiceAccountAndLimits makes the three reads in parallel.
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

// fromCache lets the API server answer from its memory. The answer is as fresh as the informers of
// its own LimitRange and ResourceQuota plugins, which later check the same pod. For a newer list it
// would wait for etcd.
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

// panicked carries a panic from another goroutine to the one that answers the request.
type panicked struct{ error }

// guard turns a panic in a look-up into an error, because a panic in a goroutine ends the process.
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
