package inject

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ampbridge/ampbridge/policy"
)

// The reasons that come from the object and not from the policy.
const (
	// AlreadyInjected means that the injection is complete and nothing is to do.
	AlreadyInjected policy.Reason = "AlreadyInjected"
	// PartlyInjected means that something in the pod has one of ampbridge's names, but it is not an
	// injection that ampbridge made.
	PartlyInjected policy.Reason = "PartlyInjected"
	// MalformedPod means that the API server would refuse the pod, also without ampbridge.
	MalformedPod policy.Reason = "MalformedPod"
	// Windows means that the pod needs a Windows node. The sidecar is a Linux program.
	Windows policy.Reason = "Windows"
	// VirtualNode means that the pod needs a virtual node. Such nodes do not support native
	// sidecars.
	VirtualNode policy.Reason = "VirtualNode"
	// NoSuchContainer means that the annotation ampbridge.io/container names no container of the
	// pod.
	NoSuchContainer policy.Reason = "NoSuchContainer"
	// AmbiguousContainer means that several containers look like Prometheus.
	AmbiguousContainer policy.Reason = "AmbiguousContainer"
	// UnreadableArguments means that a shell, a file or a variable determines which configuration
	// Prometheus reads.
	UnreadableArguments policy.Reason = "UnreadableArguments"
	// ConfigurationInImage means that the configuration file is not in a volume.
	ConfigurationInImage policy.Reason = "ConfigurationInImage"
	// ConfigurationSubPath means that the directory of the file is mounted with subPath.
	ConfigurationSubPath policy.Reason = "ConfigurationSubPath"
	// ConfigurationVolume means that not only the kubelet writes to the volume.
	ConfigurationVolume policy.Reason = "ConfigurationVolume"
	// NestedMount means that another volume is mounted inside the configuration's directory, at a
	// place where the sidecar cannot create the mount point.
	NestedMount policy.Reason = "NestedMount"
	// UnreadableSource means that the sidecar's user cannot read a file of the configuration's
	// volume, because of the file's mode.
	UnreadableSource policy.Reason = "UnreadableSource"
	// OldPrometheus means that the version is known, and that its remote_write has no WAL.
	OldPrometheus policy.Reason = "OldPrometheus"
	// MountConflict means that a mount of the Prometheus container covers a path of ampbridge.
	MountConflict policy.Reason = "MountConflict"
	// LimitRangeConflict means that no resources of the sidecar satisfy the namespace's
	// LimitRanges.
	LimitRangeConflict policy.Reason = "LimitRangeConflict"
	// QuotaExceeded means that the namespace's ResourceQuota has enough left for the pod, but not
	// for the pod with the sidecar.
	QuotaExceeded policy.Reason = "QuotaExceeded"
	// NoAzureToken means that the policy uses the token of Azure's webhook, but the pod has none.
	NoAzureToken policy.Reason = "NoAzureToken"
	// NoSidecarImage means that neither the policy nor the webhook names an image.
	NoSidecarImage policy.Reason = "NoSidecarImage"
	// ForeignIdentity means that a container for mode identity has, or could have, an AWS identity
	// already.
	ForeignIdentity policy.Reason = "ForeignIdentity"
	// HostNetwork means that mode relay is impossible, because the pod has no ports of its own.
	HostNetwork policy.Reason = "HostNetwork"
	// NoRelayPort means that the pod's containers use all ports of mode relay.
	NoRelayPort policy.Reason = "NoRelayPort"
	// VariableTaken means that a container sets a variable of mode relay itself.
	VariableTaken policy.Reason = "VariableTaken"
	// AnnotationTaken means that a service account has another role than the policy's.
	AnnotationTaken policy.Reason = "AnnotationTaken"
)

// maxWarning leaves space for a prefix. The API server cuts warnings at 256 bytes
// (https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#response).
const maxWarning = 240

// refuse returns a decision to skip.
func refuse(reason policy.Reason, format string, args ...any) *policy.Decision {
	return &policy.Decision{Reason: reason, Warning: warning(format, args...)}
}

// warning returns one line of at most [maxWarning] bytes. Pods are not validated yet, so their
// names can contain any characters and have any length.
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
