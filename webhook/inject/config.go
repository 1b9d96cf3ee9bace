package inject

import (
	"path"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// configuration is the place where the kubelet puts the configuration that
// Prometheus, or the reloader that prepares it, reads.
type configuration struct {
	// volume is its index in the pod's volumes.
	volume int
	// file is relative to the volume.
	file string
}

// locate finds the configuration of the container at an index, in one of the
// two shapes that can be served: a volume that only the kubelet writes to and
// that something in the pod reloads from, or the operator's, where a reloader
// expands such a volume's file into an emptyDir.
func locate(pod *Pod, prometheus int) (configuration, *policy.Decision) {
	c := &pod.Spec.Containers[prometheus]
	file, refused := configFile(c)
	if refused != nil {
		return configuration{}, refused
	}
	read, refused := place(pod, c, file)
	if refused != nil {
		return configuration{}, refused
	}
	switch volume := &pod.Spec.Volumes[read.volume]; volume.kind() {
	case "configMap", "secret", "projected":
		if !autoReloads(c) && !reloaded(pod, c, read) {
			return configuration{}, refuse(NoReloader, "nothing in the pod reloads %q: add --enable-feature=auto-reload-config (Prometheus 3) or a config-reloader container that watches %q", file, path.Dir(file))
		}
		return read, nested(pod, read.volume)
	case "emptyDir":
		return expanded(pod, read)
	default:
		return configuration{}, foreign(volume)
	}
}

func foreign(volume *Volume) *policy.Decision {
	return refuse(ConfigurationVolume, "the configuration lies in volume %q (%s), which others may write to: mount it from a ConfigMap or a Secret", volume.Name, volume.kind())
}

// Where an image looks when it is told nothing.
const (
	imageDir         = "/prometheus" // WORKDIR
	imageFile        = "/etc/prometheus/prometheus.yml"
	imageFileBitnami = "/opt/bitnami/prometheus/conf/prometheus.yml"
)

// configFile is the absolute path of the file that Prometheus loads.
func configFile(c *Container) (string, *policy.Decision) {
	program := ""
	if len(c.Command) > 0 {
		program = path.Base(c.Command[0])
	}
	unreadable := func(what string) (string, *policy.Decision) {
		return "", refuse(UnreadableArguments, "cannot tell which configuration container %q reads, because of %s: give it a literal --config.file argument", c.Name, what)
	}
	if slices.Contains([]string{"sh", "bash", "ash", "dash", "busybox", "env"}, program) {
		return unreadable("the shell in its command")
	}
	if slices.ContainsFunc(c.arguments(), func(arg string) bool { return strings.HasPrefix(arg, "@") }) {
		return unreadable("an argument file (@…)")
	}
	values := c.flag("config.file")
	switch {
	case len(values) > 0 && strings.Contains(values[0], "$("):
		return unreadable("a variable in --config.file")
	case len(values) > 0 && values[0] != "":
		return absolute(c, values[0]), nil
	case program != "" && program != "prometheus":
		return unreadable("the program in its command")
	case program != "" || len(c.Args) > 0:
		return absolute(c, "prometheus.yml"), nil
	case strings.Contains(c.Image, "bitnami"):
		return imageFileBitnami, nil
	}
	return imageFile, nil
}

// absolute resolves a path as the container's process does.
func absolute(c *Container, file string) string {
	if path.IsAbs(file) {
		return path.Clean(file)
	}
	if c.WorkingDir != "" {
		return path.Join(c.WorkingDir, file)
	}
	return path.Join(imageDir, file)
}

// place finds the volume behind a path of a container.
func place(pod *Pod, c *Container, file string) (configuration, *policy.Decision) {
	mount, rel := c.mountOf(file)
	switch {
	case mount != nil && mount.part():
		return configuration{}, refuse(ConfigurationSubPath, "%q is mounted with subPath, so it never changes while the pod runs: mount the volume's whole directory", file)
	case mount == nil || rel == ".":
		return configuration{}, refuse(ConfigurationInImage, "no volume is mounted over %q of container %q: mount the configuration from a ConfigMap or a Secret", file, c.Name)
	}
	volume := pod.volume(mount.Name)
	if volume < 0 {
		return configuration{}, refuse(MalformedPod, "container %q mounts volume %q, which the pod does not have", c.Name, mount.Name)
	}
	return configuration{volume, rel}, nil
}

// autoReloads tells whether Prometheus itself watches its configuration: a
// feature since 3.0, a flag since 3.12.
func autoReloads(c *Container) bool {
	return c.hasFlag("config.auto-reload") || slices.ContainsFunc(c.flag("enable-feature"), func(features string) bool {
		return slices.Contains(strings.Split(features, ","), "auto-reload-config")
	})
}

// reloaded tells whether another container of the pod watches the
// configuration's directory and has Prometheus reload it:
// prometheus-config-reloader with --watched-dir or --config-file, or
// configmap-reload with --volume-dir.
func reloaded(pod *Pod, prometheus *Container, read configuration) bool {
	for c := range pod.running {
		if c == prometheus {
			continue
		}
		for _, file := range c.flag("config-file") {
			if at, refused := place(pod, c, path.Clean(file)); refused == nil && at == read {
				return true
			}
		}
		for _, dir := range append(c.flag("watched-dir"), c.flag("volume-dir")...) {
			// The file as this container sees it, if dir is the configuration's.
			at, refused := place(pod, c, path.Join(dir, path.Base(read.file)))
			if refused == nil && at == read {
				return true
			}
		}
	}
	return false
}

// expanded follows the operator's way: Prometheus reads what a reloader makes
// of another file. All who write it must take it from one place, and one of
// them must go on doing so.
func expanded(pod *Pod, read configuration) (configuration, *policy.Decision) {
	output := &pod.Spec.Volumes[read.volume]
	source := configuration{volume: -1}
	var refused *policy.Decision
	expand := func(c *Container) {
		for _, file := range c.flag("config-envsubst-file") {
			to, notThere := place(pod, c, path.Clean(file))
			if notThere != nil || to != read {
				continue
			}
			for _, file := range c.flag("config-file") {
				from, elsewhere := place(pod, c, path.Clean(file))
				switch {
				case elsewhere != nil:
					refused = elsewhere
				case source.volume >= 0 && source != from:
					refused = refuse(ConfigurationVolume, "several files are expanded into volume %q: expand one", output.Name)
				default:
					source = from
				}
			}
		}
	}
	for c := range pod.running {
		expand(c)
	}
	continues := source.volume >= 0
	for c := range pod.all {
		expand(c)
	}
	switch {
	case refused != nil:
		return configuration{}, refused
	case source.volume < 0:
		return configuration{}, foreign(output)
	case !continues:
		return configuration{}, refuse(NoReloader, "volume %q is filled once, when the pod starts: add a config-reloader container that keeps it up to date", output.Name)
	}
	switch volume := &pod.Spec.Volumes[source.volume]; volume.kind() {
	case "configMap", "secret", "projected":
		return source, nested(pod, source.volume)
	default:
		return configuration{}, foreign(volume)
	}
}

// nested refuses a volume inside whose mounts other volumes are mounted. The
// kubelet makes their mount points in a ConfigMap's or Secret's volume, but not
// in an emptyDir; and in a read-only one the runtime cannot.
func nested(pod *Pod, volume int) *policy.Decision {
	for c := range pod.all {
		for _, outer := range c.VolumeMounts {
			if outer.Name != pod.Spec.Volumes[volume].Name {
				continue
			}
			dir := path.Clean(outer.MountPath)
			for _, inner := range c.VolumeMounts {
				if rel, inside := below(dir, path.Clean(inner.MountPath)); inside && rel != "." {
					return refuse(NestedMount, "container %q mounts %q inside the configuration's directory %q: mount it beside that directory", c.Name, inner.MountPath, outer.MountPath)
				}
			}
		}
	}
	return nil
}
