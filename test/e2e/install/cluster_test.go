//go:build linux && e2e

package install

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"

	"github.com/ampbridge/ampbridge/test/env"
)

// The following methods read from the cluster and change it for the tests.

func (e *environment) pods(namespace, selector string) []corev1.Pod {
	e.Helper()
	pods, err := e.Client().CoreV1().Pods(namespace).List(e.Context(), metav1.ListOptions{LabelSelector: selector})
	e.must(err)
	return pods.Items
}

// current returns the workload's only pod that is not being deleted.
func (e *environment) current(w workload) (pod *corev1.Pod) {
	e.Helper()
	e.Eventually(e.T, w.what+" has its pod", func(context.Context) error {
		pods := slices.DeleteFunc(e.pods(monitoring, w.selector), func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
		if len(pods) != 1 {
			return fmt.Errorf("%d pods", len(pods))
		}
		pod = &pods[0]
		return nil
	})
	return pod
}

// roll makes the workload's controller create a new pod.
func (e *environment) roll(w workload) *corev1.Pod {
	e.Helper()
	old := e.current(w)
	e.must(e.Client().CoreV1().Pods(monitoring).Delete(e.Context(), old.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(1))}))
	return e.current(w)
}

// podReady waits until the pod is ready, and updates pod.
func (e *environment) podReady(pod *corev1.Pod) {
	e.Helper()
	e.Eventually(e.T, pod.Name+" is ready", func(ctx context.Context) error {
		now, err := e.Client().CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		*pod = *now
		if !isReady(pod) {
			return fmt.Errorf("phase %s", pod.Status.Phase)
		}
		return nil
	})
}

// isReady reports whether the API server knows that the pod is ready.
func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// remove deletes the pod, and waits until it has ended.
func (e *environment) remove(pod *corev1.Pod) {
	e.Helper()
	pods := e.Client().CoreV1().Pods(pod.Namespace)
	e.must(pods.Delete(e.Context(), pod.Name, metav1.DeleteOptions{}))
	e.Eventually(e.T, pod.Name+" has ended", func(ctx context.Context) error {
		if _, err := pods.Get(ctx, pod.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %w", err)
		}
		return nil
	})
}

// runs creates the pod, waits until it is ready, and deletes it.
func (e *environment) runs(pod *corev1.Pod) {
	e.Helper()
	stored, err := e.Client().CoreV1().Pods(pod.Namespace).Create(e.Context(), pod, metav1.CreateOptions{})
	e.must(err)
	if env.Injected(stored) {
		e.Fatalf("pod %s/%s is injected", pod.Namespace, pod.Name)
	}
	e.podReady(stored)
	e.must(e.Client().CoreV1().Pods(pod.Namespace).Delete(e.Context(), pod.Name, metav1.DeleteOptions{}))
}

// injectedPods returns the injected pods that run.
func (e *environment) injectedPods() []corev1.Pod {
	e.Helper()
	return slices.DeleteFunc(e.pods(monitoring, ""), func(p corev1.Pod) bool { return p.Spec.NodeName == "" || !env.Injected(&p) })
}

// scale sets the webhook's replicas, and waits until the API server can call that many.
func (e *environment) scale(replicas int32) {
	e.Helper()
	deployments := e.Client().AppsV1().Deployments(systemNamespace)
	e.check(deployments.UpdateScale(e.Context(), release+"-webhook", &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: systemNamespace,
			Name:      release + "-webhook",
		},
		Spec: autoscalingv1.ScaleSpec{Replicas: replicas},
	}, metav1.UpdateOptions{}))
	e.Eventually(e.T, fmt.Sprintf("%d webhook replicas", replicas), func(ctx context.Context) error {
		endpoints, err := e.Client().DiscoveryV1().EndpointSlices(
			systemNamespace,
		).List(
			ctx,
			metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=" + release + "-webhook"},
		)
		if err != nil {
			return err
		}
		ready := int32(0)
		for _, slice := range endpoints.Items {
			for _, endpoint := range slice.Endpoints {
				if *endpoint.Conditions.Ready {
					ready++
				}
			}
		}
		if left := len(e.pods(systemNamespace, "app.kubernetes.io/component=webhook")); ready != replicas || left != int(replicas) {
			return fmt.Errorf("%d are ready, of %d pods", ready, left)
		}
		return nil
	})
}

// apiServerSum returns the sum of one of the API server's own metrics over the series that concern ampbridge.
func (e *environment) apiServerSum(name string) (sum float64) {
	e.Helper()
	text, err := e.Metrics(e.Context())
	e.must(err)
	line := regexp.MustCompile(`(?m)^` + name + `\{[^}]*name="[^"]*\.webhook\.ampbridge\.io"[^}]*\} (\S+)$`)
	for _, match := range line.FindAllStringSubmatch(text, -1) {
		value, err := strconv.ParseFloat(match[1], 64)
		e.must(err)
		sum += value
	}
	return sum
}

func (e *environment) webhookCalls() float64 {
	e.Helper()
	return e.apiServerSum("apiserver_admission_webhook_request_total")
}

// inventory lists every object that belongs to ampbridge by its namespace or its name, of any kind. It omits
// events, because they expire by themselves.
func (e *environment) inventory() map[string]bool {
	e.Helper()
	lists, err := e.Client().Discovery().ServerPreferredResources()
	e.must(err)
	objects, err := metadata.NewForConfig(e.Config())
	e.must(err)
	found := map[string]bool{}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, lists) {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		e.must(err)
		for _, resource := range list.APIResources {
			namespace := ""
			if resource.Namespaced {
				namespace = systemNamespace
			}
			items, err := objects.Resource(group.WithResource(resource.Name)).Namespace(namespace).List(e.Context(), metav1.ListOptions{})
			e.must(err)
			for _, item := range items.Items {
				if resource.Kind != "Event" && (resource.Namespaced || strings.Contains(item.Name, "ampbridge")) {
					found[resource.Kind+" "+item.Name] = true
				}
			}
		}
	}
	return found
}
