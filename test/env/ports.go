package env

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Ports are the ports of this machine for one pod's programs. All pods of the operator or the chart use the
// same ports, but here the pods share the host's network. [Ports.Move] replaces the ports, instead of a
// network namespace.
type Ports struct {
	// Server is the port of Prometheus, 9090 in the pod.
	Server int
	// Reloader is the port of the config reloader, 8080 in the pod. InitReloader is the port of the
	// operator's init container, 8081 in the pod.
	Reloader, InitReloader int
}

// NewPorts returns ports on which nothing listens.
func NewPorts() (p Ports, err error) {
	for _, port := range []*int{&p.Server, &p.Reloader, &p.InitReloader} {
		if *port, err = testkit.UnusedPort(); err != nil {
			return p, err
		}
	}
	return p, nil
}

// Target returns the server's address.
func (p Ports) Target() string { return fmt.Sprintf("127.0.0.1:%d", p.Server) }

// standardPort matches the pods' own ports in an address.
var standardPort = regexp.MustCompile(`:(9090|8080|8081)\b`)

// Move returns the pod to run: the pod that the API server stored, with its ports replaced in all containers.
// Admission saw the original ports.
func (p Ports) Move(pod *corev1.Pod) *corev1.Pod {
	pod = pod.DeepCopy()
	SetPort(pod, p.Server)
	moved := map[string]int{"9090": p.Server, "8080": p.Reloader, "8081": p.InitReloader}
	text := func(s string) string {
		return standardPort.ReplaceAllStringFunc(s, func(port string) string { return fmt.Sprintf(":%d", moved[port[1:]]) })
	}
	number := func(port int32) int32 {
		if to, ok := moved[fmt.Sprint(port)]; ok {
			return int32(to)
		}
		return port
	}
	for _, containers := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			listen(c)
			for _, words := range [][]string{c.Command, c.Args} {
				for j := range words {
					words[j] = text(words[j])
				}
			}
			for j := range c.Env {
				c.Env[j].Value = text(c.Env[j].Value)
			}
			for j := range c.Ports {
				c.Ports[j].ContainerPort = number(c.Ports[j].ContainerPort)
			}
			for _, probe := range []*corev1.Probe{c.StartupProbe, c.LivenessProbe, c.ReadinessProbe} {
				if probe != nil && probe.HTTPGet != nil && probe.HTTPGet.Port.Type == intstr.Int {
					probe.HTTPGet.Port.IntVal = number(probe.HTTPGet.Port.IntVal)
				}
			}
		}
	}
	return pod
}

// listen sets the flag for the port that a Prometheus otherwise uses by default.
func listen(c *corev1.Container) {
	words := append(slices.Clone(c.Command), c.Args...)
	said := slices.ContainsFunc(words, func(word string) bool { return strings.Contains(word, "--web.listen-address") })
	if said || !strings.Contains(c.Image, "prometheus/prometheus") {
		return
	}
	if len(words) == 0 {
		c.Args = slices.Clone(imageCmd)
	}
	c.Args = append(c.Args, "--web.listen-address=127.0.0.1:9090")
}
