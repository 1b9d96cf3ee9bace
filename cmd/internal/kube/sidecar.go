package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

const (
	// sidecarTimeout is the timeout for the status of one pod.
	sidecarTimeout = 5 * time.Second
	// maxStatus limits the size of a status in bytes, because a pod is not trusted.
	maxStatus = 1 << 20
)

// SidecarStatus reads the status of a pod's config sidecar through the API server, because
// pods are often not reachable from a user's machine. It needs get on pods/proxy.
func SidecarStatus(ctx context.Context, client corev1client.PodsGetter, pod *corev1.Pod) (sidecarconfig.Status, error) {
	text, err := sidecarPage(ctx, client, pod, sidecarconfig.StatusPath)
	if err != nil {
		return sidecarconfig.Status{}, err
	}
	return sidecarconfig.DecodeStatus(text)
}

// SidecarQueues reads Prometheus's metrics of the pod's blocks, as the pod's sidecar
// reads them, through the API server. It needs get on pods/proxy.
func SidecarQueues(ctx context.Context, client corev1client.PodsGetter, pod *corev1.Pod) (string, error) {
	text, err := sidecarPage(ctx, client, pod, sidecarconfig.QueuesPath)
	return string(text), err
}

// sidecarPage reads a path of the sidecar's port, cut to maxStatus.
func sidecarPage(ctx context.Context, client corev1client.PodsGetter, pod *corev1.Pod, path string) ([]byte, error) {
	port := SidecarPort(pod)
	switch {
	case port == "":
		return nil, errors.New("the sidecar serves no status: the pod is on the host's network, or has no free port")
	case pod.Status.PodIP == "":
		return nil, errors.New("the pod has no address yet")
	}
	ctx, cancel := context.WithTimeout(ctx, sidecarTimeout)
	defer cancel()
	body, err := client.Pods(pod.Namespace).ProxyGet("http", pod.Name, port, path, nil).Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("through the API server's proxy: %w", err)
	}
	defer func() { _ = body.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(body, maxStatus))
	if err != nil {
		return nil, fmt.Errorf("through the API server's proxy: %w", err)
	}
	return text, nil
}

// SidecarPort returns the port that the sidecar declares; empty if there is none.
func SidecarPort(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == sidecarconfig.ContainerName && len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return ""
}

// SidecarImage returns the image of the pod's sidecar; empty if the pod has none.
func SidecarImage(pod *corev1.Pod) string {
	for _, c := range pod.Spec.InitContainers {
		if c.Name == sidecarconfig.ContainerName {
			return c.Image
		}
	}
	return ""
}
