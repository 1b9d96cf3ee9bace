package inject

import (
	"cmp"
	"net"
	"strconv"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// relayPorts are the ports on which the relay of a pod with mode relay can listen, in the order of
// preference. The port must be known at admission, because the program gets the address in a
// variable. The sidecar takes its port in mode prometheus from the same range.
var relayPorts = []int32{24095, 25095, 26095, 27095, 28095, 29195, 23095, 22095}

// relayPasswordFile is where a container with mode relay reads the password.
const relayPasswordFile = sidecarconfig.CredentialsDir + "/" + sidecarconfig.RelayPasswordFile

// planRelay returns what is added to a pod with mode relay.
func planRelay(pod *Pod, named []namedContainer, e policy.Entitlement, o Options) (a addition, refused *policy.Decision) {
	if pod.Spec.HostNetwork {
		return a, refuse(HostNetwork, "mode relay needs the pod's own network: with hostNetwork its port would be open on the node; "+
			"remove hostNetwork, or ask the cluster admin to grant mode identity")
	}
	mount := VolumeMount{Name: sidecarconfig.VolumeCredentials, MountPath: sidecarconfig.CredentialsDir, ReadOnly: true}
	port := chooseRelayPort(pod)
	if port == 0 {
		return a, refuse(NoRelayPort, "the containers of the pod use all ports that the relay can use (%d and others): free one", relayPorts[0])
	}
	for i := range named {
		c := &named[i]
		if refused := c.covered(mount); refused != nil {
			return a, refused
		}
		c.addMount(mount)
		for _, v := range relayEnv(e, port) {
			if c.setsEnv(v.Name) {
				return a, refuse(VariableTaken, "container %q sets %s itself: remove it, because ampbridge sets it", c.Name, v.Name)
			}
			c.addedEnv = append(c.addedEnv, v)
		}
	}
	runsAs := userOf(pod, named[0].Container, o.Policy.Sidecar.SecurityContext)
	resources, refused := fitResources(o.Policy.Sidecar.Resources, pod, o.Limits)
	if refused != nil {
		return a, refused
	}
	image := cmp.Or(o.Policy.Sidecar.Image, o.Image)
	if image == "" {
		return a, refuse(NoSidecarImage, "the webhook does not know the sidecar's image: the cluster admin must set sidecar.image in the policy")
	}

	config := sidecarconfig.New(o.Policy, e)
	config.Credentials, config.Token = credentialsFile, tokenFile(o.Policy)
	config.Private = runsAs.prometheus && len(named) == 1
	config.RelayPort = port
	metricsPort, metrics := chooseMetricsPort(pod)
	config.MetricsPort = metricsPort.ContainerPort
	if !metrics {
		config.MetricsPort = sidecarconfig.NoMetrics
	}
	text := config.Encode()
	added := sidecar(image, "", text, tokenOf(o.Policy), runsAs, resources)
	added.VolumeMounts = added.VolumeMounts[2:] // mode relay mirrors no configuration
	if metrics {
		added.Ports = []Port{metricsPort}
	}
	added.Env = append(added.Env, identityEnv(e, o.Policy)...)
	added.Env = append(added.Env, proxyEnv(named[0].Container, config)...)
	a = addition{mark: relayMark(config, text, named), volumes: volumes(o.Policy), containers: named, sidecar: &added}
	return a, nil
}

// relayEnv returns the variables of a container with mode relay.
func relayEnv(e policy.Entitlement, port int32) []EnvVar {
	if port == 0 || len(e.Destinations) != 1 {
		return nil
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	return []EnvVar{
		{Name: sidecarconfig.WriteURLVariable, Value: e.Destinations[0].Block("").ByRelay(address, relayPasswordFile).URL},
		{Name: sidecarconfig.WriteUserVariable, Value: policy.RelayUser},
		{Name: sidecarconfig.WritePasswordFileVariable, Value: relayPasswordFile},
	}
}

// chooseRelayPort returns a port that, as far as the pod shows, no container of the pod uses; 0 if
// there is none.
func chooseRelayPort(pod *Pod) int32 {
	for _, port := range relayPorts {
		if !portTaken(pod, port) {
			return port
		}
	}
	return 0
}

// relayMark returns the value of [AnnotationInjected] for a pod with mode relay.
func relayMark(c sidecarconfig.Config, text string, named []namedContainer) string {
	m := markOf(c, text, "", "")
	m.Mode = policy.ModeRelay
	for _, n := range named {
		m.Containers = append(m.Containers, n.Name)
	}
	return m.encode()
}
