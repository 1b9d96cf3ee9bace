package inject

import (
	"path"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// nested returns the places inside the mounts of a volume where other volumes are mounted. The
// kubelet creates these mount points in the volume of a ConfigMap or Secret, but not in an
// emptyDir. The container runtime cannot create them in a read-only mount. So the sidecar must
// create them.
func nested(pod *Pod, volume int) ([]sidecarconfig.MountPoint, *policy.Decision) {
	var points []sidecarconfig.MountPoint
	for c := range pod.all {
		for _, outer := range c.VolumeMounts {
			if outer.Name != pod.Spec.Volumes[volume].Name {
				continue
			}
			for i := range c.VolumeMounts {
				inner := &c.VolumeMounts[i]
				rel, inside := below(cleanPath(outer.MountPath), cleanPath(inner.MountPath))
				if !inside || rel == "." {
					continue
				}
				name, _, deeper := strings.Cut(rel, "/")
				if deeper && c.mounts(path.Join(outer.MountPath, name)) {
					continue // it is in another volume
				}
				file, known := pod.isFile(inner)
				point := sidecarconfig.MountPoint{Name: name, File: file}
				at := slices.IndexFunc(points, func(p sidecarconfig.MountPoint) bool { return p.Name == name })
				switch {
				case deeper || !known || outer.part() || strings.HasPrefix(name, "..") || at >= 0 && points[at] != point:
					return nil, refuse(
						NestedMount,
						"container %q mounts %q inside the configuration's directory %q: mount it outside that directory",
						c.Name,
						inner.MountPath,
						outer.MountPath,
					)
				case at < 0:
					points = append(points, point)
				}
			}
		}
	}
	return points, nil
}

// mounts reports whether something is mounted exactly at that path.
func (c *Container) mounts(at string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return cleanPath(m.MountPath) == at })
}

// isFile reports whether a mount shows a file. known is false if the pod does not show that.
func (p *Pod) isFile(m *VolumeMount) (file, known bool) {
	index := p.volume(m.Name)
	if index < 0 || m.SubPathExpr != "" {
		return false, false
	}
	volume := &p.Spec.Volumes[index]
	switch volume.kind() {
	case "configMap", "secret", "projected":
		return m.SubPath != "" && !volume.hasDirectory(m.SubPath), true
	case "hostPath":
		source, err := volume.source()
		if err != nil || m.SubPath != "" {
			return false, false
		}
		file = source.HostPath.Type == "File" || source.HostPath.Type == "FileOrCreate"
		return file, file || strings.HasPrefix(source.HostPath.Type, "Directory")
	}
	return false, m.SubPath == ""
}

// hasDirectory reports whether the volume's items put a file below dir. Without items, all keys of
// ConfigMaps and Secrets are files in one directory.
func (v *Volume) hasDirectory(dir string) bool {
	source, err := v.source()
	if err != nil {
		return true
	}
	objects := []*volumeFiles{source.ConfigMap, source.Secret}
	if source.Projected != nil {
		for _, s := range source.Projected.Sources {
			objects = append(objects, s.ConfigMap, s.Secret, s.DownwardAPI)
		}
	}
	for _, o := range objects {
		if o == nil {
			continue
		}
		for _, item := range o.Items {
			if rel, inside := below(cleanPath(dir), cleanPath(item.Path)); inside && rel != "." {
				return true
			}
		}
	}
	return false
}
