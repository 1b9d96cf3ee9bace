package inject

import (
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// labelVersion is where the operator and the chart write Prometheus's version.
const labelVersion = "app.kubernetes.io/version"

// signs is the first version of Prometheus that knows sigv4. Prometheus parses
// its configuration strictly, so an older one would refuse it.
var signs = policy.Version{Major: 2, Minor: 26}

// versionOf returns the version of the container's Prometheus, as far as the pod
// says: the tag of an image of Prometheus's name, else the label of a pod that
// is labelled as Prometheus. Zero: it is not known.
func versionOf(pod *Pod, c *Container) policy.Version {
	if prometheusImage(c) {
		if v, err := policy.ParseVersion(imageTag(c.Image)); err == nil {
			return v
		}
	}
	labels := pod.Metadata.Labels
	if labels[labelName] == "prometheus" || labels[labelOperator] != "" {
		if v, err := policy.ParseVersion(labels[labelVersion]); err == nil {
			return v
		}
	}
	return policy.Version{}
}

// tooOld refuses a Prometheus that cannot sign.
func tooOld(pod *Pod, c *Container) *policy.Decision {
	if v := versionOf(pod, c); !v.IsZero() && v.Before(signs) {
		return refuse(
			OldPrometheus,
			"container %q runs Prometheus %s, which does not know sigv4 and would refuse the configuration: use %s or newer",
			c.Name,
			v.String(),
			signs.String(),
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
