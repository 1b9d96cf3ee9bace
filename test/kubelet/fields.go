package kubelet

import (
	"bufio"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// loopback is the address of every pod and of the node, because containers share the host's network.
const loopback = "127.0.0.1"

// fieldValue returns the value of a downward API fieldRef.
func (p *Pod) fieldValue(path string) (string, error) {
	if name, key, ok := strings.Cut(strings.TrimSuffix(path, "']"), "['"); ok {
		switch name {
		case "metadata.labels":
			return p.object().Labels[key], nil
		case "metadata.annotations":
			return p.object().Annotations[key], nil
		}
	}
	pod := p.object()
	switch path {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	case "metadata.labels":
		return formatMap(pod.Labels), nil
	case "metadata.annotations":
		return formatMap(pod.Annotations), nil
	case "spec.nodeName":
		return p.nodeName(), nil
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, nil
	case "status.podIP", "status.podIPs", "status.hostIP", "status.hostIPs":
		return loopback, nil
	}
	return "", fmt.Errorf("fieldPath %q is not one of the downward API's", path)
}

// formatMap writes labels or annotations as the downward API does: sorted and escaped, one key="value" in
// each line.
func formatMap(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}

// resourceValue returns the value of a downward API resourceFieldRef in units of its divisor, rounded up. A
// limit that is not set is the node's capacity, and a request that is not set is 0.
func (p *Pod) resourceValue(ref *corev1.ResourceFieldSelector, container *corev1.Container) (string, error) {
	if ref.ContainerName != "" {
		c := p.byName[ref.ContainerName]
		if c == nil {
			return "", fmt.Errorf("resourceFieldRef names container %q, which the pod has not", ref.ContainerName)
		}
		container = c.spec
	}
	kind, name, _ := strings.Cut(ref.Resource, ".")
	var amount resource.Quantity
	switch kind {
	case "limits":
		var ok bool
		if amount, ok = container.Resources.Limits[corev1.ResourceName(name)]; !ok {
			var err error
			if amount, err = capacity(name); err != nil {
				return "", err
			}
		}
	case "requests":
		amount = container.Resources.Requests[corev1.ResourceName(name)]
	default:
		return "", fmt.Errorf("resource %q: want limits.… or requests.…", ref.Resource)
	}
	divisor := ref.Divisor
	if divisor.IsZero() {
		divisor = resource.MustParse("1")
	}
	if name == "cpu" {
		return ceilDiv(amount.MilliValue(), divisor.MilliValue()), nil
	}
	return ceilDiv(amount.Value(), divisor.Value()), nil
}

func ceilDiv(a, b int64) string {
	return strconv.FormatInt(int64(math.Ceil(float64(a)/float64(b))), 10)
}

func capacity(name string) (resource.Quantity, error) {
	switch name {
	case "cpu":
		return *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI), nil
	case "memory":
		kib, err := memTotal()
		return *resource.NewQuantity(kib*1024, resource.BinarySI), err
	}
	return resource.Quantity{}, fmt.Errorf("limits.%s is not set and this node has no capacity of that name", name)
}

// memTotal returns the machine's memory in KiB.
func memTotal() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var kib int64
		if n, _ := fmt.Sscanf(sc.Text(), "MemTotal: %d kB", &kib); n == 1 {
			return kib, nil
		}
	}
	return 0, errors.New("/proc/meminfo has no MemTotal")
}
