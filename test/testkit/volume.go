package testkit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// dataLink is the symbolic link that is replaced atomically to update all files of a volume at once.
const dataLink = "..data"

// VolumeFile is one file of a volume that the kubelet fills.
type VolumeFile struct {
	Data []byte
	Mode fs.FileMode
}

// WriteVolume makes dir hold exactly the files of payload. It uses the layout and the order of steps of the kubelet's
// AtomicWriter (k8s.io/kubernetes/pkg/volume/util/atomic_writer.go): files in a timestamped directory, ..data pointing
// to it, and one link per first path element pointing through ..data.
func WriteVolume(dir string, payload map[string]VolumeFile) error {
	for path := range payload {
		if !filepath.IsLocal(path) || strings.HasPrefix(path, "..") {
			return fmt.Errorf("path %q: want a relative path, not starting with .., inside the volume", path)
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	current, err := os.MkdirTemp(dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := writePayload(current, payload); err != nil {
		return errors.Join(err, os.RemoveAll(current))
	}
	link := filepath.Join(dir, dataLink+"_tmp")
	if err := os.Symlink(filepath.Base(current), link); err != nil {
		return err
	}
	if err := os.Rename(link, filepath.Join(dir, dataLink)); err != nil {
		return err
	}

	visible := map[string]bool{}
	for path := range payload {
		first, _, _ := strings.Cut(path, "/")
		visible[first] = true
	}
	for name := range visible {
		err := os.Symlink(filepath.Join(dataLink, name), filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if name := e.Name(); !strings.HasPrefix(name, "..") && !visible[name] {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	if old == "" {
		return nil
	}
	return os.RemoveAll(filepath.Join(dir, old))
}

// VolumeVersion returns a name that changes with each update of a volume that the kubelet, or [WriteVolume], fills.
func VolumeVersion(dir string) (string, error) { return os.Readlink(filepath.Join(dir, dataLink)) }

// writePayload fills dir. It sets modes explicitly, so that they do not depend on this process's umask.
func writePayload(dir string, payload map[string]VolumeFile) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for path, p := range payload {
		file := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, p.Data, p.Mode); err != nil {
			return err
		}
		if err := os.Chmod(file, p.Mode); err != nil {
			return err
		}
	}
	return nil
}
