package inject

import (
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
)

// volumeFiles is what a ConfigMap, a Secret or the downward API puts into a
// volume.
type volumeFiles struct {
	DefaultMode *int64 `json:"defaultMode"`
	Items       []struct {
		Path string `json:"path"`
		Mode *int64 `json:"mode"`
	} `json:"items"`
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
	var source struct {
		ConfigMap *volumeFiles `json:"configMap"`
		Secret    *volumeFiles `json:"secret"`
		Projected *struct {
			DefaultMode *int64 `json:"defaultMode"`
			Sources     []struct {
				ConfigMap   *volumeFiles `json:"configMap"`
				Secret      *volumeFiles `json:"secret"`
				DownwardAPI *volumeFiles `json:"downwardAPI"`
			} `json:"sources"`
		} `json:"projected"`
	}
	if json.Unmarshal([]byte(volume.Source), &source) != nil {
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
