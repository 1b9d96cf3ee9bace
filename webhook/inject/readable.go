package inject

import (
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

// volumeSource is what matters here of a volume's source.
type volumeSource struct {
	ConfigMap, Secret *volumeFiles
	Projected         *projectedFiles
	EmptyDir          *emptyDir
	HostPath          hostPath
}

// source decodes the volume's source. Injection needs that of the configuration's volume
// alone, so the others are never decoded.
func (v *Volume) source() (s volumeSource, err error) {
	return s, json.Unmarshal([]byte(v.Source), &s, sourceOptions)
}

// The source was taken out of a review that was decoded with these.
var sourceOptions = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// UnmarshalJSONFrom decodes a volume's source.
func (s *volumeSource) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return jsonread.Object(jsonread.From(d), s, (*volumeSource).member)
}

func (s *volumeSource) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "configMap":
		return jsonread.Pointer(r, &s.ConfigMap, (*volumeFiles).member)
	case "secret":
		return jsonread.Pointer(r, &s.Secret, (*volumeFiles).member)
	case "projected":
		return jsonread.Pointer(r, &s.Projected, (*projectedFiles).member)
	case "emptyDir":
		return jsonread.Pointer(r, &s.EmptyDir, (*emptyDir).member)
	case "hostPath":
		return jsonread.Optional(r, &s.HostPath, (*hostPath).member)
	}
	return r.SkipValue()
}

// volumeFiles is what a ConfigMap, a Secret or the downward API puts into a
// volume.
type volumeFiles struct {
	DefaultMode *int64
	Items       []fileItem
}

func (f *volumeFiles) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "defaultMode":
		return r.IntegerPointer(&f.DefaultMode)
	case "items":
		return jsonread.Objects(r, &f.Items, 4, (*fileItem).member)
	}
	return r.SkipValue()
}

// fileItem is a KeyToPath, or a DownwardAPIVolumeFile.
type fileItem struct {
	Path string
	Mode *int64
}

func (i *fileItem) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "path":
		return r.String(&i.Path)
	case "mode":
		return r.IntegerPointer(&i.Mode)
	}
	return r.SkipValue()
}

// projectedFiles is a ProjectedVolumeSource.
type projectedFiles struct {
	DefaultMode *int64
	Sources     []projectedSource
}

func (p *projectedFiles) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "defaultMode":
		return r.IntegerPointer(&p.DefaultMode)
	case "sources":
		return jsonread.Objects(r, &p.Sources, 4, (*projectedSource).member)
	}
	return r.SkipValue()
}

// projectedSource is a VolumeProjection.
type projectedSource struct {
	ConfigMap, Secret, DownwardAPI *volumeFiles
}

func (p *projectedSource) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "configMap":
		return jsonread.Pointer(r, &p.ConfigMap, (*volumeFiles).member)
	case "secret":
		return jsonread.Pointer(r, &p.Secret, (*volumeFiles).member)
	case "downwardAPI":
		return jsonread.Pointer(r, &p.DownwardAPI, (*volumeFiles).member)
	}
	return r.SkipValue()
}

// hostPath is a HostPathVolumeSource.
type hostPath struct {
	Type string
}

func (h *hostPath) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "type" {
		h.Type = "" // null is none
		return r.String(&h.Type)
	}
	return r.SkipValue()
}

// defaultFileMode is that of files in volumes that name no other.
const defaultFileMode int64 = 0o644

// unreadable refuses a pod in which the sidecar could not read a file of the
// configuration's volume. It mirrors them all, and Prometheus waits for it.
//
// The kubelet makes these files for root:root with the mode that the volume says.
// With the pod's fsGroup they belong to that group, which may read them, and all
// containers are in it.
func unreadable(pod *Pod, volume *Volume, u user) *policy.Decision {
	if pod.Spec.SecurityContext.FSGroup != nil {
		return nil
	}
	source, err := volume.source()
	if err != nil {
		return nil // it moves as it is, whatever it is
	}
	objects := []*volumeFiles{source.ConfigMap, source.Secret}
	if source.Projected != nil {
		for _, s := range source.Projected.Sources {
			for _, o := range []*volumeFiles{s.ConfigMap, s.Secret, s.DownwardAPI} {
				if o != nil {
					objects = append(objects, &volumeFiles{DefaultMode: source.Projected.DefaultMode, Items: o.Items})
				}
			}
		}
	}
	uid, groups := u.ids(pod)
	refused := func(files string, mode int64) *policy.Decision {
		return refuse(
			UnreadableSource,
			"the config sidecar (user %d) cannot read %s of volume %q (mode %#04o, owner root): set fsGroup in the pod, or mode 0444",
			uid,
			files,
			volume.Name,
			mode,
		)
	}
	for _, o := range objects {
		if o == nil {
			continue
		}
		standard := defaultFileMode
		if o.DefaultMode != nil {
			standard = *o.DefaultMode
		}
		if len(o.Items) == 0 && !mayRead(standard, uid, groups) {
			return refused("the files", standard)
		}
		for _, item := range o.Items {
			mode := standard
			if item.Mode != nil {
				mode = *item.Mode
			}
			if !mayRead(mode, uid, groups) {
				return refused("the file "+shorten(item.Path, 40), mode)
			}
		}
	}
	return nil
}

// mayRead reports whether a user may read a file of root:root. The sidecar has no
// capabilities: not even as root may it read what the mode denies the owner.
func mayRead(mode, uid int64, groups []int64) bool {
	switch {
	case uid == 0:
		return mode&0o400 != 0
	case slices.Contains(groups, 0):
		return mode&0o040 != 0
	}
	return mode&0o004 != 0
}

// ids returns the user and the groups that the sidecar runs with. Its image knows
// no users, so the group of a user without one is root's.
func (u user) ids(pod *Pod) (uid int64, groups []int64) {
	s := u.securityContext()
	group := int64(0)
	if s.RunAsGroup != nil {
		group = *s.RunAsGroup
	}
	return *s.RunAsUser, append([]int64{group}, pod.Spec.SecurityContext.SupplementalGroups...)
}
