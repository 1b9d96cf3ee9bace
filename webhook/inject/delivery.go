package inject

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// A destination with `delivery: auto` gets sigv4 if the pod proves all of the following, and the
// relay otherwise:
//
//   - The version of Prometheus is known, and is 2.26 or newer.
//   - Prometheus reads each new session. Either a container of the pod watches the served
//     file, or expands it into the file that Prometheus reads, and calls Prometheus's own
//     address, port and prefix, with --web.enable-lifecycle set. Or Prometheus itself
//     watches the file, in a version that can.
//   - The file is not mounted with subPath, because such a mount never changes.
//   - The sidecar can read Prometheus's metrics without a password: the arguments show
//     where Prometheus listens, and --web.config.file is not set.
//   - The container has no AWS files or profile of its own: no AWS_PROFILE,
//     AWS_DEFAULT_PROFILE, AWS_SHARED_CREDENTIALS_FILE or AWS_CONFIG_FILE, no volume at
//     ~/.aws, and no envFrom, which could set one of these variables.
//
// The proof is made once for each pod. Its destinations differ only in the delivery that the policy
// or the pod's annotation sets. `delivery: sigv4` needs the same proof. Without the proof the pod
// gets the relay, and a warning lists what is missing.

// asked is [Injected.Why] of a pod that gets the relay although it proves sigv4.
const asked = "the policy or the pod's annotation asks for the relay"

// missingForSigV4 returns what the pod lacks for sigv4, as short phrases; none if it proves sigv4.
// unknown is the reason why the version is not known.
func missingForSigV4(prometheus *Container, v policy.Version, unknown string, s source) []string {
	var missing []string
	lacks := func(what string) {
		if what != "" && !slices.Contains(missing, what) {
			missing = append(missing, what)
		}
	}
	switch {
	case v.IsZero():
		lacks(unknown)
	case v.Before(firstSigV4):
		lacks("Prometheus " + v.String() + " cannot sign requests: " + firstSigV4.String() + " is the first version that can")
	}
	lacks(s.notReloaded)
	switch {
	case prometheus.hasFlag("web.config.file"):
		lacks("Prometheus has --web.config.file (prometheus-operator always sets it), so its metrics may need a password")
	case listening(prometheus) == sidecarconfig.Prometheus{}:
		lacks("the arguments do not show where Prometheus listens")
	}
	lacks(ownAWS(prometheus))
	return missing
}

// ownAWS describes the AWS files or the profile that the container has or can have; empty if it has
// none.
func ownAWS(c *Container) string {
	for _, name := range []string{"AWS_PROFILE", "AWS_DEFAULT_PROFILE", variableCredentialsFile, variableConfigFile} {
		if c.setsEnv(name) {
			return c.called() + " sets " + name
		}
	}
	switch {
	case len(c.EnvFrom) > 0:
		return c.called() + " has envFrom, which may set AWS variables"
	case filesAtHome(c):
		return c.called() + " has a volume at ~/.aws"
	}
	return ""
}

// filesAtHome reports whether the container mounts AWS files in ~/.aws, with any home directory.
func filesAtHome(c *Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool {
		at := cleanPath(m.MountPath)
		return strings.HasSuffix(at, "/.aws") || strings.Contains(at, "/.aws/")
	})
}

// decideDelivery returns the entitlement with a decided delivery for each destination. why is the
// reason why a destination does not get sigv4; empty if all do.
func decideDelivery(e policy.Entitlement, missing []string) (decided policy.Entitlement, why string) {
	e.Destinations = slices.Clone(e.Destinations) // they belong to the policy
	for i := range e.Destinations {
		d := &e.Destinations[i]
		switch {
		case len(missing) > 0:
			d.Delivery, why = policy.DeliveryRelay, missing[0]
		case d.Delivery == policy.DeliveryRelay:
			why = asked
		default:
			d.Delivery = policy.DeliverySigV4
		}
	}
	return e, why
}

// sigV4Refused returns the warning for a pod that does not prove sigv4 although the policy or the
// annotation requests it; empty if there is nothing to warn about.
func sigV4Refused(e policy.Entitlement, missing []string) string {
	for _, d := range e.Destinations {
		if d.Delivery == policy.DeliverySigV4 && len(missing) > 0 {
			text := warning("destination %s asks for delivery sigv4, but this pod gets relay: ", d.Name)
			return shorten(text+strings.Join(missing, "; "), maxWarning)
		}
	}
	return ""
}

// anySigV4 reports whether Prometheus signs the requests to one of the destinations.
func anySigV4(e policy.Entitlement) bool {
	return slices.ContainsFunc(e.Destinations, func(d policy.Destination) bool { return d.Delivery == policy.DeliverySigV4 })
}

// relayInstead changes an injected pod to the relay if another webhook has since added AWS files or
// a profile to the Prometheus container. With them Prometheus would not find the profile of its
// block, and would exit. It returns the container's variables after the change.
func relayInstead(p *patch, pod *Pod, c Container, at string) []EnvVar {
	ours := slices.Index(c.Env, ownCredentials)
	sidecar, variable := sidecarVariable(pod)
	a, err := sidecarconfig.Decode(encodedConfig(pod))
	if ours < 0 || err != nil {
		return c.Env
	}
	theirs := c
	theirs.Env = slices.Delete(slices.Clone(c.Env), ours, ours+1)
	why := ownAWS(&theirs)
	var carried Injected
	if why == "" || json.Unmarshal([]byte(pod.Metadata.Annotations[AnnotationInjected]), &carried) != nil {
		return c.Env
	}
	a.Version = sidecarconfig.VersionRelay
	for i := range a.Destinations {
		a.Destinations[i].Delivery = policy.DeliveryRelay
	}
	text := a.Encode()
	p.annotate(pod.Metadata.Annotations, AnnotationInjected, mark(a, text, carried.Reload, why))
	p.replace(pointer("spec", "initContainers", sidecar, "env", variable, "value"), escape(text))
	p.remove(at + pointer("env", ours))
	return theirs.Env
}
