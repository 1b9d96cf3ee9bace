// Package installation finds in a cluster what the chart has installed there, for
// the commands that look at it from outside.
package installation

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// Selector is the label that all objects of the chart carry, whatever the
	// release is called.
	Selector = "app.kubernetes.io/name=ampbridge"
	// Webhook selects the webhook's Deployment and pods.
	Webhook = Selector + ",app.kubernetes.io/component=webhook"
	// Sync selects sync's Deployment or CronJob, and its pods.
	Sync = Selector + ",app.kubernetes.io/component=sync"
	// PolicyKey is where in its ConfigMap the policy stands.
	PolicyKey = "policy.yaml"
)

// A Policy is one as it is installed.
type Policy struct{ ConfigMap, Text string }

// Policies lists those of a namespace: one, unless something went wrong.
func Policies(ctx context.Context, client kubernetes.Interface, namespace string) (found []Policy, err error) {
	list, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: Selector})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if text, holds := list.Items[i].Data[PolicyKey]; holds {
			found = append(found, Policy{list.Items[i].Name, text})
		}
	}
	return found, nil
}
