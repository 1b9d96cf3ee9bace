package kube

import (
	"context"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	// Selector is the label on all objects of the chart, whatever their names
	// are: app.kubernetes.io/name follows the value nameOverride.
	Selector = "ampbridge.io/chart=ampbridge"
	// WebhookSelector selects the webhook's Deployment and pods.
	WebhookSelector = Selector + ",app.kubernetes.io/component=webhook"
	// SyncSelector selects sync's Deployment or CronJob, and its pods.
	SyncSelector = Selector + ",app.kubernetes.io/component=sync"
	// PolicyKey is the key of the policy in its ConfigMap.
	PolicyKey = "policy.yaml"
	// policyVolume is the name of the volume with the policy in the webhook's pods.
	policyVolume = "policy"
)

// InstalledPolicy is the text of a policy and the name of its ConfigMap.
type InstalledPolicy struct{ ConfigMap, Text string }

// Policies returns the policies in a namespace: those of the chart, or else the
// ConfigMap that the webhook mounts, which is the user's own. There is exactly one unless
// something is wrong.
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
	if len(found) > 0 {
		return found, nil
	}
	webhooks, err := client.AppsV1().Deployments(namespace).List(ctx, metav1.ListOptions{LabelSelector: WebhookSelector})
	if err != nil {
		return nil, err
	}
	for i := range webhooks.Items {
		for _, volume := range webhooks.Items[i].Spec.Template.Spec.Volumes {
			if volume.Name != policyVolume || volume.ConfigMap == nil {
				continue
			}
			object, err := client.CoreV1().ConfigMaps(namespace).Get(ctx, volume.ConfigMap.Name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				continue
			}
			if err != nil {
				return nil, err
			}
			if text, holds := object.Data[PolicyKey]; holds {
				found = append(found, InstalledPolicy{object.Name, text})
			}
		}
	}
	return found, nil
}

// InjectedImage returns the sidecar's image that a webhook injects; empty: its flags do not
// name one.
func InjectedImage(webhook *appsv1.Deployment) string {
	for _, container := range webhook.Spec.Template.Spec.Containers {
		for i, arg := range container.Args {
			if image, found := strings.CutPrefix(arg, "--image="); found {
				return image
			}
			if arg == "--image" && i+1 < len(container.Args) {
				return container.Args[i+1]
			}
		}
	}
	return ""
}
