package inject

import (
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// A destination with `delivery: auto` gets sigv4 where the pod proves all of this,
// and the relay in doubt:
//
//   - the version of Prometheus is known, and 2.26 or newer;
//   - Prometheus reads each new session: a container of the pod watches the served
//     file, or expands it into the file that Prometheus reads, and calls
//     Prometheus's own address, port and prefix, which --web.enable-lifecycle opens;
//     or Prometheus itself watches the file, in a version that can;
//   - the file is not mounted with subPath: such a mount never changes;
//   - the sidecar can read Prometheus's metrics without a password: the arguments say
//     where it listens, and there is no --web.config.file;
//   - its container uses no AWS files or profile of its own, as far as the pod says:
//     AWS_PROFILE, AWS_DEFAULT_PROFILE, AWS_SHARED_CREDENTIALS_FILE, AWS_CONFIG_FILE,
//     a volume at ~/.aws; envFrom may bring one.
//
// It is decided once for each pod: its destinations differ only in what the policy,
// or the pod's annotation, says of them. `delivery: sigv4` needs the same proof.
// Without it the relay serves the pod, and a warning says what is missing.

// asked is [Injected.Why] of a pod that proves sigv4, and has a relay nevertheless.
const asked = "the policy or the pod's annotation asks for the relay"

// missingForSigV4 returns what a pod lacks for sigv4, as short sentences; none: it
// proves that sigv4 works. unknown says why the version is not known.
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
		lacks("Prometheus " + v.String() + " cannot sign: " + firstSigV4.String() + " is the first that can")
	}
	lacks(s.notReloaded)
	switch {
	case prometheus.hasFlag("web.config.file"):
		lacks("Prometheus has --web.config.file, so its metrics may need a password")
	case listening(prometheus) == sidecarconfig.Prometheus{}:
		lacks("the arguments do not say where Prometheus listens")
	}
	lacks(ownAWS(prometheus))
	return missing
}

// ownAWS says which AWS files or profile the container has, or may have, of its own;
// empty: none.
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

// filesAtHome reports whether the container mounts AWS files in ~/.aws, wherever its
// home is.
func filesAtHome(c *Container) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool {
		at := cleanPath(m.MountPath)
		return strings.HasSuffix(at, "/.aws") || strings.Contains(at, "/.aws/")
	})
}

// decideDelivery returns the entitlement with the delivery of each destination
// decided, and why one of them is not sigv4; empty: all are.
func decideDelivery(e policy.Entitlement, missing []string) (decided policy.Entitlement, why string) {
	e.Destinations = slices.Clone(e.Destinations) // they are the policy's
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

// sigV4Refused returns the warning for a pod whose policy or annotation asks for
// sigv4, and that does not prove it; empty: there is nothing to warn of.
func sigV4Refused(e policy.Entitlement, missing []string) string {
	for _, d := range e.Destinations {
		if d.Delivery == policy.DeliverySigV4 && len(missing) > 0 {
			text := warning("destination %s asks for delivery sigv4, and this pod gets relay: ", d.Name)
			return shorten(text+strings.Join(missing, "; "), maxWarning)
		}
	}
	return ""
}

// anySigV4 reports whether Prometheus signs for one of the destinations.
func anySigV4(e policy.Entitlement) bool {
	return slices.ContainsFunc(e.Destinations, func(d policy.Destination) bool { return d.Delivery == policy.DeliverySigV4 })
}

// relayInstead gives the relay to an injected pod whose Prometheus container has got
// AWS files of its own since: Prometheus would look there for the profile of its block,
// and exit. It returns the container's variables afterwards.
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
