package audit

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	appsv1client "k8s.io/client-go/kubernetes/typed/apps/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

const (
	// page is the number of objects per request.
	page = 200
	// firstPage is smaller, to limit memory: a pod usually needs 10 KB, but a tenant's pod can have
	// more than a megabyte. A listing begins with few pods, and continues with as many as fit in a
	// large page of bytes.
	firstPage = 20
	largePage = 4 << 20
)

// cluster is a client of the API server.
type cluster struct {
	corev1client.CoreV1Interface
	apps appsv1client.AppsV1Interface
}

var labelSelector = fmt.Sprintf("%s in (%s,%s)", policy.LabelInjection, policy.InjectionEnabled, policy.InjectionAnnotated)

// labelled returns the namespaces that the webhook is called for, with the label's
// value. It leaves out those that the webhook's registration excludes.
func (c cluster) labelled(ctx context.Context, excluded []string) (map[string]policy.Injection, error) {
	excluded = append(excluded, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease)
	found := map[string]policy.Injection{}
	for o := (metav1.ListOptions{LabelSelector: labelSelector, Limit: page}); ; {
		list, err := c.Namespaces().List(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("list the labelled namespaces: %w", err)
		}
		for i := range list.Items {
			n := &list.Items[i]
			if !slices.Contains(excluded, n.Name) && n.DeletionTimestamp.IsZero() {
				found[n.Name] = policy.Injection(n.Labels[policy.LabelInjection])
			}
		}
		if o.Continue = list.Continue; o.Continue == "" {
			return found, nil
		}
	}
}

// podPage is a PodList that decodes its pods one by one, and only partly. The
// typed client would hold all of each pod in memory.
type podPage struct {
	Metadata struct {
		Continue string `json:"continue"`
	} `json:"metadata"`
	Items []jsontext.Value `json:"items"`
}

// accountsPerRound is the number of service accounts of a namespace that a round reads, with one
// call each. If pods have more, each round covers another part of them.
const accountsPerRound = 100

// window selects the service accounts of a round: one of every share.
type window struct{ share, number int }

func (t window) covers(account string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(account)) // never fails
	return t.share <= 1 || (int(h.Sum32()>>1)+t.number)%t.share == 0
}

// assessNamespace assesses the Prometheus pods of a namespace, except those that have ended.
// q has everything except the pod. accounts is the number of service accounts of the pods.
// Service accounts outside the window wait for a later round.
func (c cluster) assessNamespace(ctx context.Context, namespace string, q Question, t window) (found []observed, accounts int, err error) {
	names := map[string]bool{}
	cache := namespaceCache{accounts: map[string]map[string]string{}}
	for o := (metav1.ListOptions{Limit: firstPage}); ; {
		raw, err := c.RESTClient().Get().Namespace(namespace).Resource("pods").VersionedParams(&o, scheme.ParameterCodec).
			SetHeader("Accept", "application/json").Do(ctx).Raw()
		if err != nil {
			return nil, 0, fmt.Errorf("list the pods of namespace %s: %w", namespace, err)
		}
		var list podPage
		if err := json.Unmarshal(raw, &list, decodeOptions); err != nil {
			return nil, 0, fmt.Errorf("list the pods of namespace %s: %w", namespace, err)
		}
		for _, item := range list.Items {
			pod, err := Decode(item)
			if err != nil {
				return nil, 0, fmt.Errorf("read a pod of namespace %s: %w", namespace, err)
			}
			if !pod.concerned() {
				continue
			}
			account := pod.serviceAccount()
			if names[account] = true; !t.covers(account) {
				continue
			}
			q.Pod = pod
			f, err := c.assess(ctx, q, &cache)
			if err != nil {
				return nil, 0, err
			}
			if f.Kind != None || pod.terminating() {
				found = append(found, observe(pod, f))
			}
		}
		if o.Continue = list.Metadata.Continue; o.Continue == "" {
			return found, len(names), nil
		}
		if len(raw) < largePage/2 {
			o.Limit = min(2*o.Limit, page)
		} else if len(raw) > largePage {
			o.Limit = max(o.Limit/2, 1)
		}
	}
}

// namespaceCache holds what was already read in a namespace, so that it is read once for all its
// pods.
type namespaceCache struct {
	// accounts maps names of service accounts to their annotations.
	accounts map[string]map[string]string
	// bounds are the LimitRanges and ResourceQuotas; nil if they were not read.
	bounds *inject.Limits
	// absent is true if the pods are not stored, so that the quotas do not count them.
	absent bool
}

// assess reads only what the finding needs.
func (c cluster) assess(ctx context.Context, q Question, k *namespaceCache) (Finding, error) {
	namespace, name := q.Pod.Metadata.Namespace, q.Pod.serviceAccount()
	if q.Pod.ended() || q.Pod.Metadata.Annotations[policy.AnnotationInject] == "false" {
		return Finding{}, nil
	}
	annotations, found := k.accounts[name]
	if !found {
		account, err := c.ServiceAccounts(namespace).Get(ctx, name, metav1.GetOptions{})
		// A service account may be deleted while its pods run. Then none of them can be
		// created again, so there is nothing to find.
		if apierrors.IsNotFound(err) {
			return Finding{}, nil
		} else if err != nil {
			return Finding{}, fmt.Errorf("read service account %s of namespace %s: %w", name, namespace, err)
		}
		annotations = account.Annotations
		k.accounts[name] = annotations
	}
	q.ServiceAccount = annotations
	f := Assess(q)
	if f.Kind != Missed {
		return f, nil
	}
	var err error
	if q.Limits, err = c.limits(ctx, q.Pod, k); err != nil {
		return Finding{}, err
	}
	return Assess(q), nil
}

func (c cluster) limits(ctx context.Context, pod *Pod, k *namespaceCache) (inject.Limits, error) {
	if k.bounds != nil && k.absent {
		return *k.bounds, nil
	} else if k.bounds != nil {
		return inject.Limits{Ranges: k.bounds.Ranges, Quotas: without(k.bounds.Quotas, pod)}, nil
	}
	namespace := pod.Metadata.Namespace
	ranges, err := c.LimitRanges(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return inject.Limits{}, fmt.Errorf("list the LimitRanges of namespace %s: %w", namespace, err)
	}
	quotas, err := c.ResourceQuotas(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return inject.Limits{}, fmt.Errorf("list the ResourceQuotas of namespace %s: %w", namespace, err)
	}
	k.bounds = &inject.Limits{Ranges: ranges.Items, Quotas: quotas.Items}
	return c.limits(ctx, pod, k)
}

// evict requests the eviction of exactly the pod that was assessed, because pods of a
// StatefulSet reuse names. If unchanged is set, the pod must not have changed
// since. The result is a value of the metric. A refusal and a missing pod
// are results and not errors.
func (c cluster) evict(ctx context.Context, o observed, unchanged bool) (result string, err error) {
	// Read the namespace again, because somebody may have removed the label in the meantime.
	namespace, err := c.Namespaces().Get(ctx, o.workload.Namespace, metav1.GetOptions{})
	if err != nil {
		return resultFailed, fmt.Errorf("read namespace %s: %w", o.workload.Namespace, err)
	}
	switch policy.Injection(namespace.Labels[policy.LabelInjection]) {
	case policy.InjectionEnabled, policy.InjectionAnnotated:
	default:
		return resultGone, nil
	}
	preconditions := &metav1.Preconditions{UID: &o.uid}
	if unchanged {
		preconditions.ResourceVersion = &o.resourceVersion
	}
	err = c.Pods(o.workload.Namespace).EvictV1(ctx, &policyv1.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Namespace: o.workload.Namespace, Name: o.name},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: preconditions},
	})
	switch {
	case err == nil:
		return resultEvicted, nil
	case apierrors.IsTooManyRequests(err):
		return resultRefused, nil
	case apierrors.IsNotFound(err), apierrors.IsConflict(err):
		return resultGone, nil
	}
	return resultFailed, fmt.Errorf("evict pod %s of namespace %s: %w", o.name, o.workload.Namespace, err)
}
