package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// watch watches the labelled namespaces and all service accounts. It keeps only what sync
// reads: names, the label, ampbridge's annotations.
type watch struct{ namespaces, accounts cache.SharedIndexInformer }

// newWatch returns a watch that calls changed after every change. changed must not block.
func newWatch(cfg *rest.Config, changed func()) (*watch, error) {
	client, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	labelled := func(o *metav1.ListOptions) { o.LabelSelector = kube.InjectionSelector }
	w := &watch{
		namespaces: metadatainformer.NewFilteredMetadataInformer(
			client,
			corev1.SchemeGroupVersion.WithResource("namespaces"),
			metav1.NamespaceAll,
			0,
			nil,
			labelled,
		).Informer(),
		accounts: metadatainformer.NewFilteredMetadataInformer(
			client,
			corev1.SchemeGroupVersion.WithResource("serviceaccounts"),
			metav1.NamespaceAll,
			0,
			cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc},
			nil,
		).Informer(),
	}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { changed() },
		UpdateFunc: func(_, _ any) { changed() },
		DeleteFunc: func(any) { changed() },
	}
	for _, informer := range []cache.SharedIndexInformer{w.namespaces, w.accounts} {
		if err := informer.SetTransform(stripped); err != nil {
			return nil, err
		}
		if _, err := informer.AddEventHandler(handler); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// stripped removes everything except what sync reads and the informer compares.
func stripped(object any) (any, error) {
	o, ok := object.(*metav1.PartialObjectMetadata)
	if !ok {
		return object, nil // a tombstone of a deleted object
	}
	kept := metav1.ObjectMeta{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion,
		CreationTimestamp: o.CreationTimestamp, Annotations: kube.RequestAnnotations(o.Annotations),
	}
	if value, found := o.Labels[policy.LabelInjection]; found {
		kept.Labels = map[string]string{policy.LabelInjection: value}
	}
	return &metav1.PartialObjectMetadata{ObjectMeta: kept}, nil
}

// start returns after the watch has read everything, or with the context's error.
func (w *watch) start(ctx context.Context) error {
	go w.namespaces.RunWithContext(ctx)
	go w.accounts.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), w.namespaces.HasSynced, w.accounts.HasSynced) {
		return ctx.Err()
	}
	return nil
}

// serviceAccounts returns the service accounts of the labelled namespaces, sorted.
func (w *watch) serviceAccounts() ([]plan.ServiceAccount, error) {
	var list []plan.ServiceAccount
	for _, object := range w.namespaces.GetStore().List() {
		ns, ok := object.(*metav1.PartialObjectMetadata)
		if !ok {
			return nil, fmt.Errorf("the watch of namespaces holds a %T", object)
		}
		accounts, err := w.accounts.GetIndexer().ByIndex(cache.NamespaceIndex, ns.Name)
		if err != nil {
			return nil, err
		}
		for _, object := range accounts {
			sa, ok := object.(*metav1.PartialObjectMetadata)
			if !ok {
				return nil, fmt.Errorf("the watch of service accounts holds a %T", object)
			}
			list = append(list, plan.ServiceAccount{
				Namespace: sa.Namespace, Injection: policy.Injection(ns.Labels[policy.LabelInjection]),
				Name: sa.Name, Annotations: sa.Annotations, Created: sa.CreationTimestamp.Time,
			})
		}
	}
	slices.SortFunc(list, func(a, b plan.ServiceAccount) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// reference returns the object for events. It has no UID if the account was deleted.
func (w *watch) reference(s policy.Subject) *corev1.ObjectReference {
	ref := &corev1.ObjectReference{APIVersion: "v1", Kind: "ServiceAccount", Namespace: s.Namespace, Name: s.ServiceAccount}
	if object, found, err := w.accounts.GetStore().GetByKey(s.Namespace + "/" + s.ServiceAccount); err == nil && found {
		if sa, ok := object.(*metav1.PartialObjectMetadata); ok {
			ref.UID, ref.ResourceVersion = sa.UID, sa.ResourceVersion
		}
	}
	return ref
}

// relevant returns the service accounts that a plan may depend on, because a grant covers them,
// and the askers, which ask for something without a grant and get an event. A cluster can have very
// many other service accounts. Only their number counts, and whether it is 0.
func relevant(p *policy.Policy, accounts []plan.ServiceAccount) (granted, askers []plan.ServiceAccount) {
	for _, sa := range accounts {
		if _, covered := p.Entitled(policy.Subject{Namespace: sa.Namespace, ServiceAccount: sa.Name}); covered {
			granted = append(granted, sa)
		} else if sa.Annotations[policy.AnnotationInject] == "true" {
			askers = append(askers, sa)
		}
	}
	return granted, askers
}

func same(a, b []plan.ServiceAccount) bool {
	return slices.EqualFunc(a, b, func(a, b plan.ServiceAccount) bool {
		return a.Namespace == b.Namespace && a.Name == b.Name && a.Injection == b.Injection && a.Created.Equal(b.Created) &&
			maps.Equal(a.Annotations, b.Annotations)
	})
}
