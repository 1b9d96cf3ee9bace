package inject

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ampbridge/ampbridge/policy"
)

// The reasons that lie in the object rather than in the policy.
const (
	// AlreadyInjected: everything is in place; there is nothing to do.
	AlreadyInjected policy.Reason = "AlreadyInjected"
	// PartlyInjected: something in the pod has one of our names, but it is not
	// an injection as we make it.
	PartlyInjected policy.Reason = "PartlyInjected"
	// MalformedPod: the API server is going to refuse the pod, with or without us.
	MalformedPod policy.Reason = "MalformedPod"
	// Windows: the sidecar is a Linux program.
	Windows policy.Reason = "Windows"
	// VirtualNode: what runs the pods of such a node does not know native sidecars.
	VirtualNode policy.Reason = "VirtualNode"
	// NoSuchContainer: the annotation ampbridge.io/container names none of the pod's.
	NoSuchContainer policy.Reason = "NoSuchContainer"
	// AmbiguousContainer: several containers look like Prometheus.
	AmbiguousContainer policy.Reason = "AmbiguousContainer"
	// UnreadableArguments: a shell, a file or a variable decides which
	// configuration Prometheus reads.
	UnreadableArguments policy.Reason = "UnreadableArguments"
	// ConfigurationInImage: no volume holds the configuration file.
	ConfigurationInImage policy.Reason = "ConfigurationInImage"
	// ConfigurationSubPath: the directory of the file is mounted with subPath.
	ConfigurationSubPath policy.Reason = "ConfigurationSubPath"
	// ConfigurationVolume: the volume is none that only the kubelet writes to.
	ConfigurationVolume policy.Reason = "ConfigurationVolume"
	// NestedMount: another volume is mounted inside the configuration's directory,
	// where the sidecar cannot make room for it.
	NestedMount policy.Reason = "NestedMount"
	// UnreadableSource: the sidecar's user could not read a file of the
	// configuration's volume, because of its mode.
	UnreadableSource policy.Reason = "UnreadableSource"
	// OldPrometheus: the version is known, and its remote_write has no WAL.
	OldPrometheus policy.Reason = "OldPrometheus"
	// MountConflict: a mount of the Prometheus container covers the paths of ours.
	MountConflict policy.Reason = "MountConflict"
	// LimitRangeConflict: no resources of the sidecar fit the namespace's LimitRanges.
	LimitRangeConflict policy.Reason = "LimitRangeConflict"
	// QuotaExceeded: the namespace's ResourceQuota has room for the pod, but not
	// for the sidecar too.
	QuotaExceeded policy.Reason = "QuotaExceeded"
	// NoAzureToken: the policy takes the token of Azure's webhook, and the pod has none.
	NoAzureToken policy.Reason = "NoAzureToken"
	// NoSidecarImage: neither the policy nor the webhook names an image.
	NoSidecarImage policy.Reason = "NoSidecarImage"
	// ForeignIdentity: a container that mode identity is for has an AWS identity, or may
	// have one.
	ForeignIdentity policy.Reason = "ForeignIdentity"
	// HostNetwork: mode relay has no port of the pod's own.
	HostNetwork policy.Reason = "HostNetwork"
	// NoRelayPort: the pod's containers take all ports of mode relay.
	NoRelayPort policy.Reason = "NoRelayPort"
	// VariableTaken: a container sets a variable of mode relay itself.
	VariableTaken policy.Reason = "VariableTaken"
	// AnnotationTaken: a service account carries another role than the policy's.
	AnnotationTaken policy.Reason = "AnnotationTaken"
)

// maxWarning leaves room for a prefix: the API server cuts warnings at 256
// bytes (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response).
const maxWarning = 240

// refuse is a decision to skip.
func refuse(reason policy.Reason, format string, args ...any) *policy.Decision {
	return &policy.Decision{Reason: reason, Warning: warning(format, args...)}
}

// warning is one line of at most [maxWarning] bytes. Pods come here before they
// are validated: their names may hold anything, of any length.
func warning(format string, args ...any) string {
	for i, arg := range args {
		if s, isString := arg.(string); isString {
			args[i] = shorten(s, 80)
		}
	}
	return shorten(fmt.Sprintf(format, args...), maxWarning)
}

func shorten(s string, limit int) string {
	const ellipsis = "…"
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	cut := limit - len(ellipsis)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + ellipsis
}
