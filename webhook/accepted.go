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
	// acceptedRetry is how long to wait after a failure, at first and at most.
	acceptedRetry, maxAcceptedRetry = time.Second, time.Minute
)

// Accepted is the last good version of the policy, which survives a restart of
// every replica.
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

// load returns the copy and its [policy.SchemaVersion].
func (a *Accepted) load(ctx context.Context) (data []byte, version string, err error) {
	ctx, cancel := context.WithTimeout(ctx, acceptedTimeout)
	defer cancel()
	object, err := a.client.Get(ctx, AcceptedConfigMap, metav1.GetOptions{})
	if err != nil {
		return nil, "", fmt.Errorf("read the ConfigMap %s: %w", AcceptedConfigMap, err)
	}
	text, there := object.Data[acceptedKey]
	if !there {
		return nil, "", fmt.Errorf("the ConfigMap %s is empty: no version of the policy has been good yet", AcceptedConfigMap)
	}
	return []byte(text), object.Annotations[policy.AnnotationVersion], nil
}

// save keeps the data, unless it is there already: each replica tries.
func (a *Accepted) save(ctx context.Context, data []byte) error {
	ctx, cancel := context.WithTimeout(ctx, acceptedTimeout)
	defer cancel()
	object, err := a.client.Get(ctx, AcceptedConfigMap, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the ConfigMap %s: %w", AcceptedConfigMap, err)
	}
	if object.Data[acceptedKey] == string(data) && object.Annotations[policy.AnnotationVersion] == policy.SchemaVersion {
		return nil
	}
	object.Data = map[string]string{acceptedKey: string(data)}
	metav1.SetMetaDataAnnotation(&object.ObjectMeta, policy.AnnotationVersion, policy.SchemaVersion)
	if _, err := a.client.Update(ctx, object, metav1.UpdateOptions{FieldManager: "ampbridge-webhook"}); err != nil {
		return fmt.Errorf("write the ConfigMap %s: %w", AcceptedConfigMap, err)
	}
	return nil
}

// Restore puts the accepted copy in force if the file has not been good yet. The
// error says why there is still no policy.
func (s *PolicySource) Restore(ctx context.Context, accepted *Accepted) error {
	if s.Current() != nil {
		return nil
	}
	data, version, err := accepted.load(ctx)
	if err != nil {
		return err
	}
	p, err := policy.Parse(data)
	if err != nil {
		return fmt.Errorf("the copy of version %q in the ConfigMap %s is no policy: %w", version, AcceptedConfigMap, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.current != nil {
		return nil // the file has become good meanwhile
	}
	s.current = p
	s.inForce(data)
	s.metrics.policyFromCopy.Set(1)
	s.logger.Warn("policy restored", "configMap", AcceptedConfigMap, "version", version, "cluster", p.Cluster.Name,
		"destinations", len(p.Destinations), "grants", len(p.Grants), "paused", p.Paused,
		"consequence", "the last good policy is in force until the file is good")
	return nil
}

// Keep restores the policy from the accepted copy while the file has not been
// good yet, and keeps each good version of the file there, until the context ends.
func (s *PolicySource) Keep(ctx context.Context, accepted *Accepted) {
	said := ""
	for wait := acceptedRetry; ; {
		err := s.keep(ctx, accepted)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err == nil:
			said, wait = "", acceptedRetry
		case err.Error() != said:
			said = err.Error()
			s.logger.Warn("the copy of the policy is out of date", "error", shorten(said, maxLoggedText))
		}
		if err == nil {
			select {
			case <-ctx.Done():
			case <-s.loaded:
			}
			continue
		}
		sleep(ctx, wait)
		wait = min(2*wait, maxAcceptedRetry)
	}
}

func (s *PolicySource) keep(ctx context.Context, accepted *Accepted) error {
	if err := s.Restore(ctx, accepted); err != nil {
		return err
	}
	s.mu.RLock()
	good := s.good
	s.mu.RUnlock()
	if good == nil {
		return nil // the policy in force is the copy itself
	}
	return accepted.save(ctx, good)
}
