package inject

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// metricsPorts are the ports that the sidecar can use for its metrics, in the order of preference.
// None of them is in the range from which the kernel takes ports for outgoing connections.
var metricsPorts = []int32{sidecarconfig.DefaultMetricsPort, 19095, 29095, 19195, 29195, 19295, 29295, 19395}

// chooseMetricsPort returns a port that, as far as the pod shows, no container of the pod uses. It
// returns false if there is none. With hostNetwork it also returns false, because every port
// belongs to the node.
func chooseMetricsPort(pod *Pod) (Port, bool) {
	if pod.Spec.HostNetwork {
		return Port{}, false
	}
	for _, number := range metricsPorts {
		if portTaken(pod, number) {
			continue
		}
		name := sidecarconfig.MetricsPortName
		for c := range pod.all {
			if slices.ContainsFunc(c.Ports, func(p Port) bool { return p.Name == name }) {
				name = sidecarconfig.MetricsPortName + "-1" // a PodMonitor refers to ports by name
				break
			}
		}
		return Port{Name: name, ContainerPort: number}, true
	}
	return Port{}, false
}

// portTaken reports whether a container could listen on the port. It declares the port, its
// arguments, variables or probes contain the number, or its program listens there by default.
func portTaken(pod *Pod, number int32) bool {
	text := strconv.Itoa(int(number))
	names := func(s string) bool { return namesNumber(s, text) }
	for c := range pod.all {
		if slices.ContainsFunc(c.Ports, func(p Port) bool { return p.ContainerPort == number }) ||
			slices.ContainsFunc(c.Command, names) || slices.ContainsFunc(c.Args, names) ||
			slices.ContainsFunc(c.Env, func(v EnvVar) bool { return names(v.Value) }) ||
			slices.ContainsFunc([]Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe}, func(p Probe) bool {
				return names(p.HTTPGet.Port) || names(p.TCPSocket.Port) || names(p.GRPC.Port)
			}) || number == sidecarconfig.DefaultMetricsPort && listensAtDefault(c) {
			return true
		}
	}
	return false
}

// namesNumber reports whether s contains the digits and they are not part of a longer number.
func namesNumber(s, digits string) bool {
	isDigit := func(i int) bool { return i >= 0 && i < len(s) && '0' <= s[i] && s[i] <= '9' }
	for from := 0; ; {
		i := strings.Index(s[from:], digits)
		if i < 0 {
			return false
		}
		i += from
		if !isDigit(i-1) && !isDigit(i+len(digits)) {
			return true
		}
		from = i + 1
	}
}

// grpcPrograms listen on 9095 for gRPC by default, because they use the server library of Cortex.
// So do programs with names that begin with one of grpcPrefixes.
var (
	grpcPrograms = []string{"loki", "mimir", "tempo", "promtail", "cortex", "pyroscope", "phlare"}
	grpcPrefixes = []string{"enterprise-logs", "enterprise-metrics", "enterprise-traces"}
)

// grpcAtDefault reports whether a part of the name is one of these programs. A regular expression
// would take a twentieth of an injection's time.
func grpcAtDefault(name string) bool {
	for part := range strings.FieldsFuncSeq(name, func(r rune) bool { return r == '-' || r == '_' || r == '.' }) {
		if slices.Contains(grpcPrograms, part) {
			return true
		}
	}
	return slices.ContainsFunc(grpcPrefixes, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// listensAtDefault reports whether the container's program listens on 9095 by default. It checks
// all names of the container, because many mirrors rename images.
func listensAtDefault(c *Container) bool {
	program, _ := c.commandLine()
	return slices.ContainsFunc([]string{c.Name, imageName(c.Image), path.Base(program)}, grpcAtDefault)
}
