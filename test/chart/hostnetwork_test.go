package chart

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// testHostNetwork has a real scheduler place the pods on two nodes, and rolls them
// there: the port of a node has one pod, and no node is left for another. The test
// plays the nodes.
func (f *fixture) testHostNetwork(t *testing.T) {
	for _, name := range []string{"one", "two"} {
		f.node(t, name)
	}
	ctx, stop := context.WithCancel(t.Context())
	played := make(chan struct{})
	go func() { defer close(played); f.playKubelet(ctx) }()
	defer func() { stop(); <-played }()

	args := []string{"-f", minimal, "--set", "webhook.tolerations[0].operator=Exists",
		"--set", "sync.enabled=false", "--set", "policy.trust.manage=none"}
	rolled := func(host bool) {
		t.Helper()
		testkit.EventuallyEmpty(t, func() string {
			d := f.webhook(t)
			if status := d.Status; status.ObservedGeneration != d.Generation || status.UpdatedReplicas != 2 || status.Replicas != 2 ||
				status.AvailableReplicas != 2 {
				return fmt.Sprintf("%+v", d.Status)
			}
			return ""
		})
		pods, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		nodes := map[string]bool{}
		for _, p := range pods.Items {
			if p.DeletionTimestamp == nil {
				nodes[p.Spec.NodeName] = true
			}
			for _, port := range p.Spec.Containers[0].Ports {
				if p.DeletionTimestamp == nil && (port.HostPort != 0) != host {
					t.Errorf("pod %s, host network %t: port %+v", p.Name, host, port)
				}
			}
		}
		if host && len(nodes) != 2 {
			t.Errorf("the pods are on %v", slices.Sorted(maps.Keys(nodes)))
		}
	}
	f.install(t, args...)
	rolled(false)
	for _, more := range []string{"", ",webhook.logLevel=debug", ",webhook.port=10260"} {
		f.upgrade(t, slices.Concat(args, []string{"--set", "webhook.hostNetwork=true" + more})...)
		rolled(true)
	}
	f.upgrade(t, args...)
	rolled(false)

	f.helm(t, "uninstall", release, "--namespace", namespace)
	testkit.EventuallyEmpty(t, func() string {
		pods, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		if len(pods.Items) > 0 {
			return fmt.Sprintf("%d pods are left", len(pods.Items))
		}
		return ""
	})
	for _, name := range []string{"one", "two"} {
		testkit.Must(t, f.Client().CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
}

// playKubelet has pods run as soon as they have a node, and ends them when they are
// deleted, a moment later as the webhook's drain takes.
func (f *fixture) playKubelet(ctx context.Context) {
	pods := f.Client().CoreV1().Pods(namespace)
	ready := []byte(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`)
	for ; ctx.Err() == nil; time.Sleep(500 * time.Millisecond) {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		for _, p := range list.Items {
			switch {
			case p.Spec.NodeName == "":
			case p.DeletionTimestamp != nil:
				err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
			case !slices.ContainsFunc(p.Status.Conditions,
				func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }):
				_, err = pods.Patch(ctx, p.Name, types.StrategicMergePatchType, ready, metav1.PatchOptions{}, "status")
			}
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
				panic(err)
			}
		}
	}
}

func (f *fixture) node(t *testing.T, name string) {
	t.Helper()
	room := corev1.ResourceList{"cpu": resource.MustParse("4"), "memory": resource.MustParse("4Gi"), "pods": resource.MustParse("20")}
	_, err := f.Client().CoreV1().Nodes().Create(t.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/hostname": name}},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room, Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
}
