package inject

import (
	"fmt"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// labelVersion is where the operator and the chart write Prometheus's version.
const labelVersion = "app.kubernetes.io/version"

// Versions of Prometheus from which on it can do something.
var (
	firstServed      = policy.Version{Major: 2, Minor: 8} // its remote_write reads the WAL
	firstSigV4       = policy.Version{Major: 2, Minor: 26}
	firstAutoFeature = policy.Version{Major: 3} // --enable-feature=auto-reload-config
	firstAutoFlag    = policy.Version{Major: 3, Minor: 12}
)

// versionOf returns the version of the container's Prometheus, as far as the pod
// says: the tag of an image of Prometheus's name, and the label of a pod that is
// labelled as Prometheus. Where it is not known, unknown says why.
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
			"neither the image's tag nor the label " + labelVersion + " tells it"
	case tag.IsZero():
		return label, ""
	case label.IsZero() || tag == label:
		return tag, ""
	}
	return policy.Version{}, fmt.Sprintf(
		"the version of Prometheus is not known: the image's tag says %s, the label %s says %s", tag, labelVersion, label,
	)
}

// tooOld refuses a Prometheus that would lose samples whenever a write has to wait.
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

// imageTag returns the tag of an image; empty: it has none.
func imageTag(image string) string {
	image, _, _ = strings.Cut(image, "@")
	_, tag, _ := strings.Cut(image[strings.LastIndexByte(image, '/')+1:], ":")
	return tag
}
