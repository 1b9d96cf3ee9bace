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

// AcceptedConfigMap is the name of the ConfigMap, in ampbridge's own namespace,
// that keeps the last good version of the policy. The chart makes it, empty.
const AcceptedConfigMap = "ampbridge-policy-accepted"

const (
	// acceptedKey is the file in it. Another name than the policy's own, by which
	// commands find the policy.
	acceptedKey = "accepted.yaml"
	// acceptedTimeout bounds one read or write of it.
	acceptedTimeout = 5 * time.Second
)

// Accepted is the [policyfile.Store] in the ConfigMap: the last good version of the
// policy survives a restart of every replica.
type Accepted struct {
	client corev1client.ConfigMapInterface
}

// AcceptedIn returns the copy in a namespace. The identity needs to get and
// update the ConfigMap [AcceptedConfigMap] there.
func AcceptedIn(config *rest.Config, namespace string) (*Accepted, error) {
	client, err := corev1client.NewForConfig(connection(config, maxBreaker))
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return AcceptedOf(client.ConfigMaps(namespace)), nil
}

// AcceptedOf returns the copy that a client reads and writes.
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
		return nil, "", fmt.Errorf("%s is empty: no version of the policy has been good yet", a)
	}
	return []byte(text), object.Annotations[policy.AnnotationVersion], nil
}

// Save keeps the data. It writes nothing if the data is there already: each replica
// tries.
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
