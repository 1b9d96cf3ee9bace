package inject

import (
	"cmp"
	"fmt"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Mark returns the mark that an injected pod carries, and the one that it would
// be given today by the same decision. They differ where the policy, or the
// format of the sidecar config, has changed what the pod's sidecar would be told. An
// error says why one of them cannot be read.
//
// An injected pod no longer shows where its configuration came from, so the
// config of its sidecar tells what belongs to the pod; only what belongs to
// the policy is made anew. A policy member that is forgotten here hides a
// drift; a pod's that were made anew wrongly would call every pod outdated.
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
	// What the pod proves stands in its mark.
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

// ModeOf returns the mode of an injected pod; empty: it has no injection, or a mark
// that cannot be read.
func ModeOf(pod *Pod) policy.Mode {
	text, marked := pod.Metadata.Annotations[AnnotationInjected]
	var m Injected
	if !marked || json.Unmarshal([]byte(text), &m) != nil {
		return ""
	}
	return cmp.Or(m.Mode, policy.ModePrometheus)
}

// encodedConfig returns the config of the pod's sidecar, as [sidecarconfig.Encode] wrote it.
func encodedConfig(pod *Pod) string {
	sidecar, variable := sidecarVariable(pod)
	if sidecar < 0 {
		return ""
	}
	return unescape(pod.Spec.InitContainers[sidecar].Env[variable].Value)
}

// sidecarVariable returns the place of the pod's sidecar among the init containers, and
// of its config among the variables; -1: there is none.
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
