package status

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/webhook/inject"
)

// sidecarTimeout is for one pod.
const sidecarTimeout = 5 * time.Second

// sidecar reads the sidecar's metrics through the API server, which reaches pods
// where people's machines do not.
func (c *collector) sidecar(ctx context.Context, pod *corev1.Pod) (map[string]Sidecar, error) {
	port := ""
	for _, container := range pod.Spec.InitContainers {
		if container.Name == inject.ContainerSidecar && len(container.Ports) > 0 {
			port = strconv.Itoa(int(container.Ports[0].ContainerPort))
		}
	}
	switch {
	case port == "":
		return nil, errors.New("its port is not declared")
	case pod.Status.PodIP == "":
		return nil, errors.New("the pod has no address yet")
	}
	ctx, cancel := context.WithTimeout(ctx, sidecarTimeout)
	defer cancel()
	text, err := c.client.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, port, "/metrics", nil).DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("through the API server's proxy: %w", err)
	}
	return parse(string(text)), nil
}

// sample is a line of the text format that has no label but the destination
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
var sample = regexp.MustCompile(`(?m)^(ampbridge_\w+)\{destination="([a-z0-9-]+)"\} (\S+)$`)

// parse picks what the report is made of.
func parse(text string) map[string]Sidecar {
	all := map[string]Sidecar{}
	for _, m := range sample.FindAllStringSubmatch(strings.ReplaceAll(text, "\r", ""), -1) {
		value, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			continue
		}
		s := all[m[2]]
		switch m[1] {
		case "ampbridge_session_valid":
			s.SessionValid = value == 1
		case "ampbridge_session_expiry_timestamp_seconds":
			s.Expires = time.Unix(int64(value), 0).UTC()
		case "ampbridge_block_served":
			s.BlockServed = value == 1
		case "ampbridge_gap_seconds":
			s.GapSeconds = value
		default:
			continue
		}
		all[m[2]] = s
	}
	return all
}
