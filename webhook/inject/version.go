package inject

import (
	"fmt"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// labelVersion is the label with Prometheus's version, which the operator and the chart set.
const labelVersion = "app.kubernetes.io/version"

// The first versions of Prometheus with certain features.
var (
	firstServed      = policy.Version{Major: 2, Minor: 8} // its remote_write reads the WAL
	firstSigV4       = policy.Version{Major: 2, Minor: 26}
	firstAutoFeature = policy.Version{Major: 3} // --enable-feature=auto-reload-config
	firstAutoFlag    = policy.Version{Major: 3, Minor: 12}
)

// versionOf returns the version of the container's Prometheus, if the pod shows it: in the tag of
// an image with Prometheus's name, or in the label of a pod that is labelled as Prometheus. If the
// version is not known, unknown is the reason.
func versionOf(pod *Pod, c *Container) (v policy.Version, unknown string) {
	var tag, label policy.Version
	if prometheusImage(c) {
		tag, _ = policy.ParseVersion(imageTag(c.Image))
	}
	labels := pod.Metadata.Labels
	if labels[labelName] == "prometheus" || labels[labelOperator] != "" {
		label, _ = policy.ParseVersion(labels[labelVersion])
	}
	switch {
	case tag.IsZero() && label.IsZero():
		return policy.Version{}, "the version of Prometheus is not known: " +
			"neither the image's tag nor the label " + labelVersion + " contains it"
	case tag.IsZero():
		return label, ""
	case label.IsZero() || tag == label:
		return tag, ""
	}
	return policy.Version{}, fmt.Sprintf(
		"the version of Prometheus is not known: the image's tag is %s, but the label %s is %s", tag, labelVersion, label,
	)
}

// tooOld refuses a Prometheus that would lose samples whenever a write must wait.
func tooOld(c *Container, v policy.Version) *policy.Decision {
	if !v.IsZero() && v.Before(firstServed) {
		return refuse(
			OldPrometheus,
			"container %q runs Prometheus %s, and remote_write has no WAL before %s, so samples would be lost: use a newer version",
			c.Name,
			v.String(),
			firstServed.String(),
		)
	}
	return nil
}

// imageTag returns the tag of an image; empty if it has none.
func imageTag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	_, tag, _ := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return tag
}
