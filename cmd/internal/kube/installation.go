package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// Selector is the label that all objects of the chart carry, whatever the
	// release is called.
	Selector = "app.kubernetes.io/name=ampbridge"
	// WebhookSelector selects the webhook's Deployment and pods.
	WebhookSelector = Selector + ",app.kubernetes.io/component=webhook"
	// SyncSelector selects sync's Deployment or CronJob, and its pods.
	SyncSelector = Selector + ",app.kubernetes.io/component=sync"
	// PolicyKey is the key of the policy in its ConfigMap.
	PolicyKey = "policy.yaml"
)

// InstalledPolicy is the text of a policy and the name of its ConfigMap.
type InstalledPolicy struct{ ConfigMap, Text string }

// Policies lists the policies of a namespace. There is one unless something went
// wrong.
func Policies(ctx context.Context, client kubernetes.Interface, namespace string) (found []InstalledPolicy, err error) {
	list, err := client.CoreV1().ConfigMaps(namespace).List(ctx, metav1.ListOptions{LabelSelector: Selector})
	if err != nil {
		return nil, err
	}
	for i := range list.Items {
		if text, holds := list.Items[i].Data[PolicyKey]; holds {
			found = append(found, InstalledPolicy{list.Items[i].Name, text})
		}
	}
	return found, nil
}
