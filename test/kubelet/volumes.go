package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// A volume is a directory of the host. A volume with content is written again when the content changes.
type volume struct {
	name    string
	dir     string
	content func(context.Context) (map[string]testkit.VolumeFile, error) // nil if only containers write to the volume
	written map[string]testkit.VolumeFile
}

// sync updates the volume. On an error the volume keeps its content, as on a real node.
func (v *volume) sync(ctx context.Context) error {
	if v.content == nil {
		return nil
	}
	payload, err := v.content(ctx)
	if err == nil {
		same := func(a, b testkit.VolumeFile) bool { return a.Mode == b.Mode && bytes.Equal(a.Data, b.Data) }
		if v.written != nil && maps.EqualFunc(payload, v.written, same) {
			return nil
		}
		err = testkit.WriteVolume(v.dir, payload)
	}
	if err != nil {
		return fmt.Errorf("volume %s: %w", v.name, err)
	}
	v.written = payload
	return nil
}

// addVolume creates the directory of a volume of a supported kind.
func (p *Pod) addVolume(spec corev1.Volume) error {
	v := &volume{name: spec.Name, dir: filepath.Join(p.dir, "volumes", spec.Name)}
	mode := fs.FileMode(0o755)
	switch {
	case spec.ConfigMap != nil:
		v.content = func(ctx context.Context) (map[string]testkit.VolumeFile, error) {
			src := spec.ConfigMap
			return p.configMapFiles(ctx, src.Name, selection{src.Items, src.DefaultMode, src.Optional})
		}
	case spec.Secret != nil:
		v.content = func(ctx context.Context) (map[string]testkit.VolumeFile, error) {
			src := spec.Secret
			return p.secretFiles(ctx, src.SecretName, selection{src.Items, src.DefaultMode, src.Optional})
		}
	case spec.DownwardAPI != nil:
		v.content = func(context.Context) (map[string]testkit.VolumeFile, error) {
			return p.downwardFiles(spec.DownwardAPI.Items, spec.DownwardAPI.DefaultMode)
		}
	case spec.Projected != nil:
		v.content = func(ctx context.Context) (map[string]testkit.VolumeFile, error) {
			return p.projectedFiles(ctx, spec.Projected)
		}
	default: // emptyDir, persistentVolumeClaim
		mode = 0o777
	}
	if err := errors.Join(os.MkdirAll(v.dir, mode), os.Chmod(v.dir, mode)); err != nil {
		return err
	}
	p.volumes[spec.Name] = v
	return nil
}

// selection is what a volume takes of a ConfigMap or Secret: the items, or everything if
// there are none.
type selection struct {
	items    []corev1.KeyToPath
	mode     *int32
	optional *bool
}

func (p *Pod) configMapFiles(ctx context.Context, name string, s selection) (map[string]testkit.VolumeFile, error) {
	cm, err := p.objects.configMap(ctx, name)
	if err != nil {
		return s.missing(err)
	}
	data := maps.Clone(cm.BinaryData)
	if data == nil {
		data = map[string][]byte{}
	}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	return s.pick("ConfigMap "+name, data)
}

func (p *Pod) secretFiles(ctx context.Context, name string, s selection) (map[string]testkit.VolumeFile, error) {
	secret, err := p.objects.secret(ctx, name)
	if err != nil {
		return s.missing(err)
	}
	return s.pick("Secret "+name, secret.Data)
}

// missing returns no files where an object that could not be read is optional and does not exist.
func (s selection) missing(err error) (map[string]testkit.VolumeFile, error) {
	if apierrors.IsNotFound(err) && isTrue(s.optional) {
		return map[string]testkit.VolumeFile{}, nil
	}
	return nil, err
}

// pick returns an object's keys as files: all of them, or those that are selected.
func (s selection) pick(object string, data map[string][]byte) (map[string]testkit.VolumeFile, error) {
	files := map[string]testkit.VolumeFile{}
	if s.items == nil {
		for k, v := range data {
			files[k] = testkit.VolumeFile{Data: v, Mode: fileMode(nil, s.mode)}
		}
	}
	for _, item := range s.items {
		v, ok := data[item.Key]
		if !ok {
			if isTrue(s.optional) {
				continue
			}
			return nil, fmt.Errorf("%s has no key %s", object, item.Key)
		}
		files[path.Clean(item.Path)] = testkit.VolumeFile{Data: v, Mode: fileMode(item.Mode, s.mode)}
	}
	return files, nil
}

func (p *Pod) downwardFiles(items []corev1.DownwardAPIVolumeFile, mode *int32) (map[string]testkit.VolumeFile, error) {
	files := map[string]testkit.VolumeFile{}
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = p.fieldValue(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = p.resourceValue(item.ResourceFieldRef, nil)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", item.Path, err)
		}
		files[path.Clean(item.Path)] = testkit.VolumeFile{Data: []byte(value), Mode: fileMode(item.Mode, mode)}
	}
	return files, nil
}

func (p *Pod) projectedFiles(ctx context.Context, spec *corev1.ProjectedVolumeSource) (map[string]testkit.VolumeFile, error) {
	files := map[string]testkit.VolumeFile{}
	for _, src := range spec.Sources {
		var more map[string]testkit.VolumeFile
		var err error
		switch {
		case src.ConfigMap != nil:
			more, err = p.configMapFiles(ctx, src.ConfigMap.Name, selection{src.ConfigMap.Items, spec.DefaultMode, src.ConfigMap.Optional})
		case src.Secret != nil:
			more, err = p.secretFiles(ctx, src.Secret.Name, selection{src.Secret.Items, spec.DefaultMode, src.Secret.Optional})
		case src.DownwardAPI != nil:
			more, err = p.downwardFiles(src.DownwardAPI.Items, spec.DefaultMode)
		case src.ServiceAccountToken != nil:
			more, err = p.tokenFile(ctx, src.ServiceAccountToken, spec.DefaultMode)
		}
		if err != nil {
			return nil, err
		}
		maps.Copy(files, more)
	}
	return files, nil
}

// tokenFile returns a token's file. It is private if the kubelet can make it private: to the only user of all
// containers, or to the group in the pod's fsGroup.
func (p *Pod) tokenFile(
	ctx context.Context, src *corev1.ServiceAccountTokenProjection, defaultMode *int32,
) (map[string]testkit.VolumeFile, error) {
	token, err := p.tokens.get(ctx, src.Audience, src.ExpirationSeconds)
	if err != nil {
		return nil, err
	}
	mode := fileMode(nil, defaultMode)
	switch sc := p.spec.Spec.SecurityContext; {
	case sc != nil && sc.FSGroup != nil:
		mode = 0o640
	case p.haveOneUser():
		mode = 0o600
	}
	return map[string]testkit.VolumeFile{path.Clean(src.Path): {Data: []byte(token), Mode: mode}}, nil
}

// haveOneUser reports whether the pod's own settings show that all its containers run as the same user.
func (p *Pod) haveOneUser() bool {
	var first *int64
	for _, c := range p.containers {
		uid := effective(c.spec.SecurityContext, p.spec.Spec.SecurityContext).user
		if uid == nil || first != nil && *first != *uid {
			return false
		}
		first = uid
	}
	return true
}

// fileMode returns the mode of one file: its own, or its volume's, or the API's default 0644.
func fileMode(own, volume *int32) fs.FileMode {
	for _, m := range []*int32{own, volume} {
		if m != nil {
			return fs.FileMode(*m).Perm() // set-user-id and similar bits have no meaning here
		}
	}
	return 0o644
}

// source returns the path on the host for a mount of the volume. A subPath is resolved only now, so the mount
// keeps showing the same file after later changes of the volume.
func (v *volume) source(subPath string) (string, error) {
	if subPath == "" {
		return v.dir, nil
	}
	if !filepath.IsLocal(subPath) {
		return "", fmt.Errorf("subPath %q: want a relative path inside the volume", subPath)
	}
	root, err := os.OpenRoot(v.dir) // a link that a container created cannot lead outside
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if _, err := root.Stat(subPath); errors.Is(err, fs.ErrNotExist) {
		// The kubelet creates a missing path as a directory.
		if err := root.MkdirAll(subPath, 0o755); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", fmt.Errorf("subPath %q: %w", subPath, err)
	}
	return filepath.EvalSymlinks(filepath.Join(v.dir, subPath))
}
