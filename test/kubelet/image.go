package kubelet

import (
	"strings"
)

// An Image describes what a pod sees of a container image: programs of this machine, and the defaults from
// the image's configuration.
type Image struct {
	// Match is the image's repository, or the last path elements of it ("prometheus/prometheus"). It can end
	// with a tag ("prometheus/prometheus:v3.1.0") to distinguish versions. A digest in the pod's reference is
	// not compared.
	Match string
	// Binaries maps paths in the container to programs on this machine. They must be statically linked,
	// because the container has no libraries.
	Binaries map[string]string
	// Entrypoint, Cmd, Env ("NAME=value") and WorkingDir are from the image's configuration.
	Entrypoint, Cmd, Env []string
	WorkingDir           string
	// Volumes are the paths of the image's VOLUME. Each is a directory of the container that is writable,
	// even with a read-only root.
	Volumes []string
	// User is the numeric user in the image's configuration. It is used if the pod sets no user.
	User int64
}

// Images are the images on this node. The first that matches a reference is used.
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

// hasTag reports whether the reference has a tag. A colon before the last slash belongs to a registry's port.
func hasTag(ref string) bool { return strings.LastIndex(ref, ":") > strings.LastIndex(ref, "/") }

func withoutTag(ref string) string {
	if hasTag(ref) {
		return ref[:strings.LastIndex(ref, ":")]
	}
	return ref
}

// argv combines the image's command with the pod's, by the rule of the Kubernetes API: a command replaces
// both parts of the image, and args alone replace the second part.
func (i Image) argv(command, args []string) []string {
	switch {
	case len(command) > 0:
		return append(append([]string(nil), command...), args...)
	case len(args) > 0:
		return append(append([]string(nil), i.Entrypoint...), args...)
	}
	return append(append([]string(nil), i.Entrypoint...), i.Cmd...)
}
