//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	// Name is the node's name in the cluster.
	Name = "node"
	// Address is the node's address, from the range for documentation. Pods can reach every server of the
	// test process at this address.
	Address = "192.0.2.10"
	// SecondAddress and [ThirdAddress] belong to the node too, for more servers on the same port.
	SecondAddress = "192.0.2.11"
	// ThirdAddress is another address of the node.
	ThirdAddress = "192.0.2.12"
	// podRange is the range of the pods' addresses, and podGateway is the node's address in it.
	podRange, podGateway = "10.244.0.0/24", "10.244.0.1"
	serviceRange         = "10.96.0.0/16"
	clusterDomain        = "cluster.local"

	readyTimeout, awaitTimeout = 3 * time.Minute, 3 * time.Minute
	// drainTimeout limits how long all pods have to end, because one of them may hang.
	drainTimeout = time.Minute
	// drainGrace is how long a pod has to end, in seconds.
	drainGrace = 1
)

// Options describe the node and the cluster to start.
type Options struct {
	// Cluster are the options of the control plane. A scheduler always runs.
	Cluster cluster.Options
	// Images are archives (OCI or docker) that pods can use. Images that an earlier node of the same test
	// process imported are still available.
	Images []string
	// CA are the certificate authorities, in PEM, that the node and every container find in the usual place
	// of a Linux system. If empty, the node has those of the machine, and containers have none.
	CA []byte
	// Hosts are names, in addition to the cluster's own, that pods and the test can resolve, with their
	// addresses: [Address], [SecondAddress] or [ThirdAddress].
	Hosts map[string]string
	// Progress gets a line for each step; nil for none.
	Progress io.Writer
}

// A Node is a cluster with one node that runs pods.
type Node struct {
	*cluster.Cluster

	dir      string // of this node, inside Main's directory
	options  Options
	programs map[string]string
	running  bool // pods can run
}

// Start starts a node that ends with the test. If it cannot, it fails the test. Only one node runs at a time.
// The package's TestMain must call [Main].
func Start(tb testing.TB, options Options) *Node {
	tb.Helper()
	begin := time.Now()
	n, err := New(tb.Context(), options)
	testkit.CloseAfter(tb, n, err)
	tb.Logf("node: ready after %s", time.Since(begin).Round(time.Millisecond))
	return n
}

// New starts a node and returns when pods can run on it. The caller must call Close.
func New(ctx context.Context, options Options) (_ *Node, err error) {
	if Dir() == "" {
		return nil, errors.New("node: outside its namespaces: TestMain has to call node.Main")
	}
	n := &Node{options: options, programs: map[string]string{}}
	if n.dir, err = os.MkdirTemp(Dir(), "node-"); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	for _, name := range Tools() {
		if n.programs[name], err = tools.Find(ctx, name, os.Stderr); err != nil {
			return nil, fmt.Errorf("node: %w", err)
		}
	}
	options.Cluster.Scheduler = true
	options.Cluster.Progress = options.Progress
	options.Cluster.ExtraAPIServerArgs = append([]string{
		// Pods reach the API server through the Service "kubernetes", so the Service needs an endpoint.
		"--bind-address=0.0.0.0", "--advertise-address=" + Address, "--endpoint-reconciler-type=lease",
		"--kubelet-preferred-address-types=InternalIP",
	}, options.Cluster.ExtraAPIServerArgs...)
	if n.Cluster, err = cluster.New(ctx, options.Cluster); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not within %s", readyTimeout))
	defer cancel()
	for _, step := range []func(context.Context) error{n.startContainerd, n.importImages, n.startKubelet, n.startProxy, n.startDNS, n.ready} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(fmt.Errorf("node: %w", err), n.Close())
		}
	}
	n.running = true
	return n, nil
}

// Close ends all pods, and then the node and its cluster. A second call does nothing.
func (n *Node) Close() error {
	var drainErr error
	if n.running {
		n.running = false
		drainErr = n.drain(context.Background())
	}
	return errors.Join(drainErr, n.Cluster.Close())
}

// drain ends every pod, so that its network and mounts are removed in an orderly way. New pods of their
// controllers find no node.
func (n *Node) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, drainTimeout, fmt.Errorf("not within %s", drainTimeout))
	defer cancel()
	cordon := []byte(`{"spec":{"unschedulable":true}}`)
	if _, err := n.Client().CoreV1().Nodes().Patch(ctx, Name, types.StrategicMergePatchType, cordon, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("node: cordon: %w", err)
	}
	return n.WaitUntil(ctx, "all pods have ended", func(ctx context.Context) error {
		pods, err := n.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + Name})
		if err != nil || len(pods.Items) == 0 {
			return err
		}
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp != nil && *pod.DeletionGracePeriodSeconds <= drainGrace {
				continue
			}
			err := n.Client().CoreV1().Pods(
				pod.Namespace,
			).Delete(
				ctx,
				pod.Name,
				metav1.DeleteOptions{GracePeriodSeconds: new(int64(drainGrace))},
			)
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		return fmt.Errorf("%d are left, %s/%s among them", len(pods.Items), pods.Items[0].Namespace, pods.Items[0].Name)
	})
}

func (n *Node) ready(ctx context.Context) error {
	return n.WaitUntil(ctx, "the node is ready", func(ctx context.Context) error {
		node, err := n.Client().CoreV1().Nodes().Get(ctx, Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(node.Spec.Taints) > 0 {
			return fmt.Errorf("it has the taints %v", node.Spec.Taints)
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			}
			if c.Type == corev1.NodeReady {
				return errors.New(c.Message)
			}
		}
		return errors.New("it has no condition Ready yet")
	})
}

// Logs returns what a container of the pod has written so far.
func (n *Node) Logs(ctx context.Context, namespace, pod, container string) string {
	raw, err := n.Client().CoreV1().Pods(namespace).GetLogs(pod, &corev1.PodLogOptions{Container: container}).DoRaw(ctx)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}

// Tools returns the programs of package tools that a node runs.
func Tools() []string {
	return []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns"}
}

func (n *Node) say(format string, args ...any) {
	if n.options.Progress != nil {
		// A failed write of progress must not fail the start.
		_, _ = fmt.Fprintf(n.options.Progress, "node: "+format+"\n", args...)
	}
}

// Eventually polls until check returns nil. It fails the test if that takes more than some minutes.
func (n *Node) Eventually(tb testing.TB, what string, check func(context.Context) error) {
	tb.Helper()
	ctx, cancel := context.WithTimeoutCause(tb.Context(), awaitTimeout, fmt.Errorf("not within %s", awaitTimeout))
	defer cancel()
	testkit.Must(tb, n.WaitUntil(ctx, what, check))
}
