package inject

import (
	"cmp"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Mark returns two marks: the one that an injected pod carries, and the one that it would get today
// from the same decision. They differ if a change of the policy, or of the sidecar config's format,
// changes the pod's sidecar config. An error names the mark that cannot be read.
//
// An injected pod no longer shows where its configuration came from. So the members that depend on
// the pod are taken from its sidecar's config, and only the members that depend on the policy are
// computed again. If a member of the policy were forgotten here, a drift would stay hidden. If a
// member of the pod were computed wrongly, every pod would look outdated.
func Mark(pod *Pod, e policy.Entitlement, p *policy.Policy) (carried, today Injected, err error) {
	if err := json.Unmarshal([]byte(pod.Metadata.Annotations[AnnotationInjected]), &carried); err != nil {
		return carried, today, fmt.Errorf("annotation %s: %w", AnnotationInjected, err)
	}
	switch carried.Mode {
	case policy.ModeIdentity:
		today = carried
		today.Policy = ""
		if e.Mode == policy.ModeIdentity && len(e.Destinations) == 1 {
			today.Policy = identityDigest(e, p)
		}
		return carried, today, nil
	case policy.ModeRelay:
		e.Mode = policy.ModeRelay
	}
	given, err := sidecarconfig.Decode(encodedConfig(pod))
	if err != nil {
		return carried, today, err
	}
	// The pod's mark contains what the pod proves.
	var missing []string
	if carried.Why != "" && carried.Why != asked {
		missing = []string{carried.Why}
	}
	why := ""
	if carried.Mode != policy.ModeRelay {
		e, why = decideDelivery(e, missing)
	}
	now := sidecarconfig.New(p, e)
	given.Version, given.Cluster, given.SessionSeconds = now.Version, now.Cluster, now.SessionSeconds
	given.STS, given.Destinations, given.Token = now.STS, now.Destinations, tokenFile(p)
	today = markOf(given, given.Encode(), carried.Reload, why)
	today.Mode, today.Containers = carried.Mode, carried.Containers
	return carried, today, nil
}

// ModeOf returns the mode of an injected pod; empty if the pod has no injection or an unreadable
// mark.
func ModeOf(pod *Pod) policy.Mode {
	text, marked := pod.Metadata.Annotations[AnnotationInjected]
	var m Injected
	if !marked || json.Unmarshal([]byte(text), &m) != nil {
		return ""
	}
	return cmp.Or(m.Mode, policy.ModePrometheus)
}

// encodedConfig returns the encoded config of the pod's sidecar, see [sidecarconfig.Encode].
func encodedConfig(pod *Pod) string {
	sidecar, variable := sidecarVariable(pod)
	if sidecar < 0 {
		return ""
	}
	return unescape(pod.Spec.InitContainers[sidecar].Env[variable].Value)
}

// sidecarVariable returns the index of the pod's sidecar among the init containers, and of its
// config among the variables; both are -1 if there is none.
func sidecarVariable(pod *Pod) (sidecar, variable int) {
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.Name == sidecarconfig.ContainerName {
			for j := range c.Env {
				if c.Env[j].Name == sidecarconfig.Variable {
					return i, j
				}
			}
		}
	}
	return -1, -1
}
