// Package registration builds the objects that tell the API server when to call
// the webhook. It is a pure function of its options, so that the chart, the
// demo and the tests register the same objects.
//
// Other pods cost no call. A namespace selector selects only labelled namespaces, and a match
// condition only pods that could be Prometheus. The condition accepts more pods than
// inject.Prometheus, because a pod that the condition misses is skipped silently.
package registration

import (
	"errors"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
)

// Defaults of [Options].
const (
	DefaultName           = "ampbridge"
	DefaultTimeoutSeconds = 5
)

// The paths of the webhook's handlers. The value of the namespace's label is
// appended to them. The API server matches the label, so the webhook never reads
// namespaces.
const (
	PodPath            = "/pods/"
	ServiceAccountPath = "/serviceaccounts/"
)

// EnforcerOptOut is a label and an annotation of the registration. It tells the
// "admissions enforcer" of AKS not to change the object. The enforcer would
// write into the namespace selectors as another field manager, and each later
// server-side apply of the chart would fail with a conflict.
const EnforcerOptOut = "admissions.enforcer/disabled"

// PolicyPath is the path of the handler that reviews the policy.
const PolicyPath = "/policy"

// domain is the end of the webhooks' names, which must have three parts.
const domain = ".webhook.ampbridge.io"

// Options configures how the API server reaches the webhook, and what it does when it
// cannot reach it.
type Options struct {
	// Name is the object's name; [DefaultName] by default.
	Name string
	// ClientConfig is the webhook's base address: a URL or a Service, with its CA bundle.
	// The handlers' paths are appended to it.
	ClientConfig admissionv1.WebhookClientConfig
	// FailurePolicy is Ignore by default, so that a webhook that is down does not prevent pods from
	// starting.
	FailurePolicy admissionv1.FailurePolicyType
	// TimeoutSeconds is 1 to 30; [DefaultTimeoutSeconds] by default. The webhook's own
	// look-ups end after two seconds.
	TimeoutSeconds int32
	// ExcludedNamespaces are never selected, whatever their label. Add the webhook's own
	// namespace. kube-system, kube-public and kube-node-lease are always excluded.
	ExcludedNamespaces []string
	// Labels and Annotations are set on the object, in addition to [EnforcerOptOut].
	Labels, Annotations map[string]string
}

// New returns the object that registers the webhook. It has an entry for each kind of
// object and each value of the namespace's label, because the path contains the
// label's value.
func New(o Options) (*admissionv1.MutatingWebhookConfiguration, error) {
	if (o.ClientConfig.URL == nil) == (o.ClientConfig.Service == nil) {
		return nil, errors.New("registration: ClientConfig: set either URL or Service")
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.FailurePolicy == "" {
		o.FailurePolicy = admissionv1.Ignore
	}
	if o.TimeoutSeconds == 0 {
		o.TimeoutSeconds = DefaultTimeoutSeconds
	}
	configuration := &admissionv1.MutatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "MutatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: o.Name, Labels: optedOut(o.Labels), Annotations: optedOut(o.Annotations)},
	}
	for _, object := range []struct {
		resource   string
		path       string
		operations []admissionv1.OperationType
		conditions []admissionv1.MatchCondition
	}{
		{"pods", PodPath, []admissionv1.OperationType{admissionv1.Create},
			[]admissionv1.MatchCondition{{Name: "can-be-prometheus", Expression: CanBePrometheus}}},
		{"serviceaccounts", ServiceAccountPath, []admissionv1.OperationType{admissionv1.Create, admissionv1.Update}, nil},
	} {
		for _, injection := range []policy.Injection{policy.InjectionEnabled, policy.InjectionAnnotated} {
			client, err := clientConfig(o.ClientConfig, object.path+string(injection))
			if err != nil {
				return nil, err
			}
			configuration.Webhooks = append(configuration.Webhooks, admissionv1.MutatingWebhook{
				Name:         EntryName(object.resource, injection),
				ClientConfig: client,
				Rules: []admissionv1.RuleWithOperations{{
					Operations: object.operations,
					Rule: admissionv1.Rule{
						APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{object.resource},
						Scope: new(admissionv1.NamespacedScope),
					},
				}},
				NamespaceSelector:       namespaces(injection, o.ExcludedNamespaces),
				MatchConditions:         object.conditions,
				MatchPolicy:             new(admissionv1.Equivalent),
				FailurePolicy:           new(o.FailurePolicy),
				SideEffects:             new(admissionv1.SideEffectClassNone),
				ReinvocationPolicy:      new(admissionv1.IfNeededReinvocationPolicy),
				TimeoutSeconds:          new(o.TimeoutSeconds),
				AdmissionReviewVersions: []string{"v1"},
			})
		}
	}
	return configuration, nil
}

// PolicyEntryName is the name of the entry that reviews the policy.
const PolicyEntryName = "policy" + domain

// NewPolicy returns the object that makes the API server ask the webhook about one
// ConfigMap, the policy's, before it changes. No other ConfigMap costs a call. While the webhook
// does not answer, the API server accepts every version of the policy. Of the
// options it uses Name, ClientConfig and Labels.
func NewPolicy(o Options, namespace, configMap string) (*admissionv1.ValidatingWebhookConfiguration, error) {
	if (o.ClientConfig.URL == nil) == (o.ClientConfig.Service == nil) {
		return nil, errors.New("registration: ClientConfig: set either URL or Service")
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	client, err := clientConfig(o.ClientConfig, PolicyPath)
	if err != nil {
		return nil, err
	}
	return &admissionv1.ValidatingWebhookConfiguration{
		TypeMeta:   metav1.TypeMeta{APIVersion: admissionv1.SchemeGroupVersion.String(), Kind: "ValidatingWebhookConfiguration"},
		ObjectMeta: metav1.ObjectMeta{Name: o.Name, Labels: o.Labels},
		Webhooks: []admissionv1.ValidatingWebhook{{
			Name:         PolicyEntryName,
			ClientConfig: client,
			Rules: []admissionv1.RuleWithOperations{{
				Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
				Rule: admissionv1.Rule{
					APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"configmaps"},
					Scope: new(admissionv1.NamespacedScope),
				},
			}},
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
			MatchConditions: []admissionv1.MatchCondition{{
				Name: "is-the-policy", Expression: "object.metadata.name == '" + configMap + "'",
			}},
			MatchPolicy:             new(admissionv1.Equivalent),
			FailurePolicy:           new(admissionv1.Ignore),
			SideEffects:             new(admissionv1.SideEffectClassNone),
			TimeoutSeconds:          new(int32(DefaultTimeoutSeconds)),
			AdmissionReviewVersions: []string{"v1"},
		}},
	}, nil
}

// EntryName returns the name under which the API server counts calls, for example
// pods-enabled.webhook.ampbridge.io.
func EntryName(resource string, injection policy.Injection) string {
	return resource + "-" + string(injection) + domain
}

// optedOut returns the labels or annotations with [EnforcerOptOut] added, unless they have a
// value for it.
func optedOut(m map[string]string) map[string]string {
	all := map[string]string{EnforcerOptOut: "true"}
	maps.Copy(all, m)
	return all
}

func clientConfig(base admissionv1.WebhookClientConfig, at string) (admissionv1.WebhookClientConfig, error) {
	config := *base.DeepCopy()
	if config.Service != nil {
		prefix := ""
		if config.Service.Path != nil {
			prefix = *config.Service.Path
		}
		config.Service.Path = new(path.Join("/", prefix, at))
		return config, nil
	}
	u, err := url.Parse(*config.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return config, errors.New("registration: ClientConfig.URL: must be https://host:port")
	}
	config.URL = new(strings.TrimSuffix(u.String(), "/") + at)
	return config, nil
}

func namespaces(injection policy.Injection, excluded []string) *metav1.LabelSelector {
	never := append([]string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease}, excluded...)
	slices.Sort(never)
	return &metav1.LabelSelector{
		MatchLabels: map[string]string{policy.LabelInjection: string(injection)},
		MatchExpressions: []metav1.LabelSelectorRequirement{
			// The API server itself puts this label on every namespace.
			{Key: corev1.LabelMetadataName, Operator: metav1.LabelSelectorOpNotIn, Values: slices.Compact(never)},
		},
	}
}
