package inject

import (
	"path"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// configuration is where the kubelet puts the configuration file, which Prometheus reads or a
// reloader expands for it.
type configuration struct {
	// volume is the index in the pod's volumes.
	volume int
	// file is the path inside the volume.
	file string
}

// source is the configuration that the sidecar serves, and how a change of it reaches Prometheus.
type source struct {
	configuration
	reload Reload
	// notReloaded is the reason why it is not certain that something reloads Prometheus; empty if
	// it is certain.
	notReloaded string
	// points are the mount points of other volumes inside the configuration's volume.
	points []sidecarconfig.MountPoint
}

// locateConfig returns the configuration of the container with the index prometheus. Two cases are
// supported. In the first the file is in a volume that only the kubelet writes to. The second is
// the operator's: a reloader expands the file of such a volume into an emptyDir.
func locateConfig(pod *Pod, prometheus int) (source, *policy.Decision) {
	c := &pod.Spec.Containers[prometheus]
	file, refused := configFile(c)
	if refused != nil {
		return source{}, refused
	}
	read, pinned, refused := where(pod, c, file)
	if refused != nil {
		return source{}, refused
	}
	found := source{configuration: read}
	switch volume := &pod.Spec.Volumes[read.volume]; volume.kind() {
	case "configMap", "secret", "projected":
	case "emptyDir":
		if found.configuration, refused = expanded(pod, read); refused != nil {
			return source{}, refused
		}
	default:
		return source{}, refuseVolume(volume)
	}
	found.reload, found.notReloaded = reloadOf(pod, c, read, found.configuration, pinned)
	found.points, refused = nested(pod, found.volume)
	return found, refused
}

// where extends [place]. It also finds a file that is mounted alone with subPath. Then it returns
// pinned true, because such a mount always shows the content from the start of the container.
func where(pod *Pod, c *Container, file string) (read configuration, pinned bool, refused *policy.Decision) {
	mount, rel := c.mountOf(file)
	if mount == nil || !mount.part() || mount.SubPathExpr != "" || rel != "." {
		read, refused = place(pod, c, file)
		return read, false, refused
	}
	volume := pod.volume(mount.Name)
	if volume < 0 {
		return configuration{}, false, noVolume(c, mount)
	}
	return configuration{volume, cleanPath(mount.SubPath)}, true, nil
}

func refuseVolume(volume *Volume) *policy.Decision {
	return refuse(
		ConfigurationVolume,
		"the configuration is in volume %q (%s), which other programs can change: mount it from a ConfigMap or a Secret",
		volume.Name,
		volume.kind(),
	)
}

// The paths that an image uses without arguments.
const (
	imageDir         = "/prometheus" // WORKDIR
	imageFile        = "/etc/prometheus/prometheus.yml"
	imageFileBitnami = "/opt/bitnami/prometheus/conf/prometheus.yml"
)

// configFile returns the absolute path of the file that Prometheus loads.
func configFile(c *Container) (string, *policy.Decision) {
	command, args := c.commandLine()
	program := path.Base(command)
	if command == "" {
		program = ""
	}
	unreadable := func(what string) (string, *policy.Decision) {
		return "", refuse(
			UnreadableArguments,
			"cannot determine which configuration container %q reads, because of %s: set a literal --config.file argument",
			c.Name,
			what,
		)
	}
	if slices.Contains(shells, program) || program == "busybox" || program == "env" {
		return unreadable("the shell in its command")
	}
	if slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "@") }) {
		return unreadable("an argument file (@…)")
	}
	_, shell := c.script()
	file, set := c.firstFlag("config.file")
	switch {
	case set && (strings.Contains(file, "$(") || shell && strings.Contains(file, "$")):
		return unreadable("a variable in --config.file")
	case set && file != "":
		return absolute(c, file), nil
	case program != "" && program != "prometheus":
		return unreadable("the program in its command")
	case program != "" || len(c.Args) > 0:
		return absolute(c, "prometheus.yml"), nil
	case strings.Contains(c.Image, "bitnami"):
		return imageFileBitnami, nil
	}
	return imageFile, nil
}

// absolute returns the absolute path of file, as the container's process resolves it.
func absolute(c *Container, file string) string {
	if path.IsAbs(file) {
		return cleanPath(file)
	}
	if c.WorkingDir != "" {
		return path.Join(c.WorkingDir, file)
	}
	return path.Join(imageDir, file)
}

// place returns the volume of a path in a container.
func place(pod *Pod, c *Container, file string) (configuration, *policy.Decision) {
	mount, rel := c.mountOf(file)
	switch {
	case mount != nil && mount.part():
		return configuration{}, refuse(
			ConfigurationSubPath,
			"%q is in a directory that is mounted with subPath, and disappears when the configuration changes: mount the volume's "+
				"whole directory",
			file,
		)
	case mount == nil || rel == ".":
		return configuration{}, refuse(
			ConfigurationInImage,
			"no volume is mounted over %q of container %q: mount the configuration from a ConfigMap or a Secret",
			file,
			c.Name,
		)
	}
	volume := pod.volume(mount.Name)
	if volume < 0 {
		return configuration{}, noVolume(c, mount)
	}
	return configuration{volume, rel}, nil
}

func noVolume(c *Container, mount *VolumeMount) *policy.Decision {
	return refuse(MalformedPod, "container %q mounts volume %q, which the pod does not have", c.Name, mount.Name)
}

// expanded returns the file that a reloader expands into the file that Prometheus reads, as in the
// operator's pods. The sidecar is the first init container, so every reloader expands the file that
// the sidecar serves, both at the start and later. All reloaders must read the same file.
func expanded(pod *Pod, read configuration) (configuration, *policy.Decision) {
	output := &pod.Spec.Volumes[read.volume]
	source := configuration{volume: -1}
	for c := range pod.all {
		if !c.anyFlag(func(file string) bool { return c.sees(pod, file, read) }, expandedFlags...) {
			continue
		}
		for _, file := range c.flag(configFlags...) {
			from, refused := place(pod, c, cleanPath(file))
			if refused != nil {
				return configuration{}, refused
			}
			if source.volume >= 0 && source != from {
				return configuration{}, refuse(ConfigurationVolume, "several files are expanded into volume %q: expand only one", output.Name)
			}
			source = from
		}
	}
	if source.volume < 0 {
		return configuration{}, refuseVolume(output)
	}
	switch volume := &pod.Spec.Volumes[source.volume]; volume.kind() {
	case "configMap", "secret", "projected":
		return source, nil
	default:
		return configuration{}, refuseVolume(volume)
	}
}
