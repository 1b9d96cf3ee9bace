package webhook

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
)

// AcceptedConfigMap is the name of the ConfigMap that holds the last good version of the policy. It
// is in ampbridge's own namespace. The chart creates it empty.
const AcceptedConfigMap = "ampbridge-policy-accepted"

const (
	// acceptedKey is the key of the copy. It differs from the key of the policy itself, because
	// commands find the policy by its key.
	acceptedKey = "accepted.yaml"
	// acceptedTimeout limits one read or write of the ConfigMap.
	acceptedTimeout = 5 * time.Second
)

// Accepted is a [policyfile.Store] in the ConfigMap. With it the last good version of the policy
// survives a restart of all replicas.
type Accepted struct {
	client corev1client.ConfigMapInterface
}

// AcceptedIn returns the store in a namespace. The identity needs permission to get and update the
// ConfigMap [AcceptedConfigMap] there.
func AcceptedIn(config *rest.Config, namespace string) (*Accepted, error) {
	client, err := corev1client.NewForConfig(connection(config, maxBreaker))
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return AcceptedOf(client.ConfigMaps(namespace)), nil
}

// AcceptedOf returns the store that uses the client.
func AcceptedOf(client corev1client.ConfigMapInterface) *Accepted { return &Accepted{client} }

func (a *Accepted) String() string { return "the ConfigMap " + AcceptedConfigMap }

// Load returns the copy and its [policy.SchemaVersion].
func (a *Accepted) Load(ctx context.Context) (data []byte, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, acceptedTimeout)
	defer cancel()
	object, err := a.client.Get(ctx, AcceptedConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("read %s: %w", a, err)
	}
	text, there := object.Data[acceptedKey]
	if !there {
		return nil, "", fmt.Errorf("%s is empty: the webhook has not stored a valid policy yet", a)
	}
	return []byte(text), object.Annotations[policy.AnnotationVersion], nil
}

// Save stores the data. It writes nothing if the same data is stored already, because every replica
// calls it.
func (a *Accepted) Save(ctx context.Context, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, acceptedTimeout)
	defer cancel()
	object, err := a.client.Get(ctx, AcceptedConfigMap, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read %s: %w", a, err)
	}
	if object.Data[acceptedKey] == string(data) && object.Annotations[policy.AnnotationVersion] == policy.SchemaVersion {
		return nil
	}
	object.Data = map[string]string{acceptedKey: string(data)}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, policy.AnnotationVersion, policy.SchemaVersion)
	if _, err := a.client.Update(ctx, object, metav1.UpdateOptions{FieldManager: "ampbridge-webhook"}); err != nil {
		return fmt.Errorf("write %s: %w", a, err)
	}
	return nil
}
