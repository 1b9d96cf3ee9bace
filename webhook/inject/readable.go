package inject

import (
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

// volumeSource is the part of a volume's source that injection needs.
type volumeSource struct {
	ConfigMap, Secret *volumeFiles
	Projected         *projectedFiles
	EmptyDir          *emptyDir
	HostPath          hostPath
}

// source decodes the volume's source. Injection needs only the source of the configuration's
// volume, so the others are never decoded.
func (v *Volume) source() (s volumeSource, err error) {
	return s, json.Unmarshal([]byte(v.Source), &s, sourceOptions)
}

// The source is from a review that was decoded with these options.
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

// volumeFiles are the files of a ConfigMap, a Secret or the downward API in a volume.
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

// fileItem is a KeyToPath or a DownwardAPIVolumeFile.
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

// defaultFileMode is the mode of files in volumes that set none.
const defaultFileMode int64 = 0o644

// unreadable refuses a pod if the sidecar could not read a file of the configuration's volume. The
// sidecar mirrors all files, and Prometheus waits for it.
//
// The kubelet creates these files for root:root with the mode of the volume. If the pod has an
// fsGroup, the files belong to that group and the group can read them. All containers are in that
// group.
func unreadable(pod *Pod, volume *Volume, u user) *policy.Decision {
	if pod.Spec.SecurityContext.FSGroup != nil {
		return nil
	}
	source, err := volume.source()
	if err != nil {
		return nil // the volume is moved unchanged, whatever its source is
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

// mayRead reports whether a user can read a file of root:root. The sidecar has no capabilities, so
// even root cannot read a file if the mode denies it to the owner.
func mayRead(mode, uid int64, groups []int64) bool {
	switch {
	case uid == 0:
		return mode&0o400 != 0
	case slices.Contains(groups, 0):
		return mode&0o040 != 0
	}
	return mode&0o004 != 0
}

// ids returns the user and the groups of the sidecar. Its image has no user database, so the
// default group of a user is root's.
func (u user) ids(pod *Pod) (uid int64, groups []int64) {
	s := u.securityContext()
	group := int64(0)
	if s.RunAsGroup != nil {
		group = *s.RunAsGroup
	}
	return *s.RunAsUser, append([]int64{group}, pod.Spec.SecurityContext.SupplementalGroups...)
}
