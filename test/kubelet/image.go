package kubelet

import (
	"strings"
)

// An Image says what a container image consists of, as far as a pod can tell: programs of this machine, and the
// settings of the image's configuration that a container falls back to.
type Image struct {
	// Match is the image's repository, or the last path elements of it ("prometheus/prometheus"), and may end in a tag
	// ("prometheus/prometheus:v3.1.0") to tell versions apart. A digest in the pod's reference is not compared.
	Match string
	// Binaries maps paths in the container to programs on this machine. They have to be statically linked: the
	// container holds no libraries.
	Binaries map[string]string
	// Entrypoint, Cmd, Env ("NAME=value") and WorkingDir are those of the image's configuration.
	Entrypoint, Cmd, Env []string
	WorkingDir           string
	// Volumes are the paths of the image's VOLUME: directories of the container's own, writable whatever its root is.
	Volumes []string
	// User is the numeric user of the image's configuration: what the container runs as when the pod does not say.
	User int64
}

// Images are the images that this node has. The first that matches a reference is taken.
type Images []Image

// find returns the image that ref names.
func (is Images) find(ref string) (Image, bool) {
	ref, _, _ = strings.Cut(ref, "@")
	for _, image := range is {
		name := ref
		if !hasTag(image.Match) {
			name = withoutTag(ref)
		}
		if name == image.Match || strings.HasSuffix(name, "/"+image.Match) {
			return image, true
		}
	}
	return Image{}, false
}

// A colon before the last slash belongs to a registry's port.
func hasTag(ref string) bool { return strings.LastIndex(ref, ":") > strings.LastIndex(ref, "/") }

func withoutTag(ref string) string {
	if hasTag(ref) {
		return ref[:strings.LastIndex(ref, ":")]
	}
	return ref
}

// argv combines the image's command with the pod's, by the rule of the Kubernetes API: a command replaces both of the
// image's parts, args alone replace the second.
func (i Image) argv(command, args []string) []string {
	switch {
	case len(command) > 0:
		return append(append([]string(nil), command...), args...)
	case len(args) > 0:
		return append(append([]string(nil), i.Entrypoint...), args...)
	}
	return append(append([]string(nil), i.Entrypoint...), i.Cmd...)
}
