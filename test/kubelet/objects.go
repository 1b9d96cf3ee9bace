package kubelet

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// readTimeout limits how long a container's start waits for the first read of an object.
const readTimeout = 10 * time.Second

// objects are the pod itself and the ConfigMaps and Secrets that it refers to. Each is watched separately, by
// name, from its first use, as in the kubelet: a node must not list the objects of other nodes.
type objects struct {
	client    kubernetes.Interface
	namespace string
	ctx       context.Context // ends the watches
	watches   sync.WaitGroup

	mu    sync.Mutex
	known map[string]*watched // by resource/name
}

type watched struct {
	cache.SharedIndexInformer
	mu  sync.Mutex
	err error // of the last attempt to read
}

type newInformer func(kubernetes.Interface, string, time.Duration, cache.Indexers, func(*metav1.ListOptions)) cache.SharedIndexInformer

func (o *objects) configMap(ctx context.Context, name string) (*corev1.ConfigMap, error) {
	return read[*corev1.ConfigMap](ctx, o, "configmaps", name, filtered(coreinformers.NewFilteredConfigMapInformer))
}

func (o *objects) secret(ctx context.Context, name string) (*corev1.Secret, error) {
	return read[*corev1.Secret](ctx, o, "secrets", name, filtered(coreinformers.NewFilteredSecretInformer))
}

func (o *objects) pod(ctx context.Context, name string) (*corev1.Pod, error) {
	return read[*corev1.Pod](ctx, o, "pods", name, filtered(coreinformers.NewFilteredPodInformer))
}

// read is [objects.get] for objects of a type.
func read[T any](ctx context.Context, o *objects, resource, name string, informer newInformer) (object T, err error) {
	found, err := o.get(ctx, resource, name, informer)
	if err != nil {
		return object, err
	}
	return found.(T), nil
}

// filtered adapts a constructor of client-go, whose type of filter has a name that cannot be imported.
func filtered[F ~func(*metav1.ListOptions)](
	create func(kubernetes.Interface, string, time.Duration, cache.Indexers, F) cache.SharedIndexInformer,
) newInformer {
	return func(c kubernetes.Interface, ns string, d time.Duration, i cache.Indexers, f func(*metav1.ListOptions)) cache.SharedIndexInformer {
		return create(c, ns, d, i, f)
	}
}

// get returns the newest known state of an object, or the API's not-found error.
func (o *objects) get(ctx context.Context, resource, name string, informer newInformer) (any, error) {
	w := o.watch(resource, name, informer)
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	if !cache.WaitForCacheSync(ctx.Done(), w.HasSynced) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return nil, fmt.Errorf("%s %s/%s could not be read within %s: %w", resource, o.namespace, name, readTimeout, w.err)
	}
	obj, found, err := w.GetStore().GetByKey(o.namespace + "/" + name)
	if err == nil && !found {
		err = apierrors.NewNotFound(corev1.Resource(resource), name)
	}
	return obj, err
}

func (o *objects) watch(resource, name string, informer newInformer) *watched {
	o.mu.Lock()
	defer o.mu.Unlock()
	key := resource + "/" + name
	if w, ok := o.known[key]; ok {
		return w
	}
	w := &watched{SharedIndexInformer: informer(o.client, o.namespace, 0, cache.Indexers{}, func(l *metav1.ListOptions) {
		l.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
	})}
	// It only fails for an informer that already runs.
	_ = w.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.err = err
	})
	o.known[key] = w
	o.watches.Go(func() { w.Run(o.ctx.Done()) })
	return w
}
