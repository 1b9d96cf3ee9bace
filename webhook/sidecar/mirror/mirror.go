// Package mirror copies a directory of configuration files into another one,
// in the layout that the kubelet gives to the volumes it fills, so that whoever
// watches the copy sees what it would see in the original:
//
//	prometheus.yml -> ..data/prometheus.yml
//	..data -> ..2026_01_02_15_04_05.1234567890
//	..2026_01_02_15_04_05.1234567890/prometheus.yml
//
// A new set of files becomes visible in one step, the rename of ..data. That is
// k8s.io/kubernetes/pkg/volume/util.AtomicWriter; config-reloaders wait for
// exactly this event.
package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	dataLink = "..data"
	// reserved starts the names that are the layout's own.
	reserved = ".."
	// maxDepth bounds directories that contain themselves through a symlink.
	maxDepth = 32
)

// Files is the content of a directory, by slash-separated path. Directories
// exist as far as files are in them.
type Files map[string]File

// File is one file's permissions and bytes.
type File struct {
	Mode    fs.FileMode
	Content []byte
}

func (f File) equal(g File) bool { return f.Mode == g.Mode && bytes.Equal(f.Content, g.Content) }

// Served reports whether dir holds a set of files that Write has completed.
func Served(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, dataLink))
	return err == nil && info.IsDir()
}

// Swapped returns when the files that dir holds became visible; zero: it holds none.
func Swapped(dir string) time.Time {
	info, err := os.Lstat(filepath.Join(dir, dataLink))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Fingerprint is text that differs once the content of dir may have changed,
// and is cheap to get: nothing is read but names, sizes and times.
func Fingerprint(dir string) (string, error) {
	base, err := dataDir(dir)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(base)
	err = walk(base, "", 0, func(path, _ string, info fs.FileInfo) error {
		fmt.Fprintf(&b, "\n%s %d %s %d", path, info.Size(), info.Mode(), info.ModTime().UnixNano())
		return nil
	})
	return b.String(), err
}

// Read reads every file of dir, following symlinks. Where the kubelet swaps the
// content while it is being read, the result is all old or all new.
func Read(dir string) (Files, error) {
	for attempt := 0; ; attempt++ {
		base, err := dataDir(dir)
		if err != nil {
			return nil, err
		}
		files := Files{}
		err = walk(base, "", 0, func(path, name string, info fs.FileInfo) error {
			content, err := os.ReadFile(name)
			files[path] = File{info.Mode().Perm(), content}
			return err
		})
		// A directory that is being taken away can be read without an error, and
		// lack files.
		switch now, linkErr := dataDir(dir); {
		case linkErr != nil:
			return nil, linkErr
		case now == base:
			return files, err
		case attempt == 3:
			return nil, errChanging
		}
	}
}

var errChanging = errors.New("the directory's content changes faster than it can be read")

// dataDir is the directory that ..data points to, or dir itself where it has
// another layout.
func dataDir(dir string) (string, error) {
	target, err := os.Readlink(filepath.Join(dir, dataLink))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dir, nil
	case err != nil:
		return "", err
	case filepath.IsAbs(target):
		return target, nil
	}
	return filepath.Join(dir, target), nil
}

func walk(dir, prefix string, depth int, visit func(path, name string, info fs.FileInfo) error) error {
	if depth > maxDepth {
		return fmt.Errorf("%s: directories are nested more than %d deep: remove the symlink that leads back", dir, maxDepth)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if depth == 0 && strings.HasPrefix(entry.Name(), reserved) {
			continue
		}
		path, name := prefix+entry.Name(), filepath.Join(dir, entry.Name())
		info, err := os.Stat(name)
		switch {
		case err != nil:
			return err
		case info.IsDir():
			err = walk(name, path+"/", depth+1, visit)
		case info.Mode().IsRegular():
			err = visit(path, name, info)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// MountPoint is an entry of a directory over which another volume is mounted:
// a directory, or a file.
type MountPoint struct {
	Name string
	File bool
}

// Write makes dir show exactly files, in one step, and reports whether anything
// changed. Mount points are made beside them, and stay: to remove one would take
// the mount away from whoever has it. They hide files of the same name, as the
// mount does. Until that step nothing in dir that is visible is touched: a full
// volume, or a crash, leaves what was there. What a crash left behind is
// removed by the next Write.
func Write(dir string, files Files, points ...MountPoint) (changed bool, err error) {
	if Served(dir) {
		current, err := Read(dir)
		if err == nil && maps.EqualFunc(current, files, File.equal) {
			return false, publish(dir, files, points)
		}
	}
	// Before the first swap, which is what the pod's other containers wait for.
	if err := prepare(dir, points); err != nil {
		return false, err
	}
	version, err := os.MkdirTemp(dir, time.Now().UTC().Format(reserved+"2006_01_02_15_04_05."))
	if err != nil {
		return false, err
	}
	if err := fill(version, files); err != nil {
		return false, errors.Join(err, os.RemoveAll(version))
	}
	if err := swap(dir, filepath.Base(version)); err != nil {
		return false, errors.Join(err, os.RemoveAll(version))
	}
	return true, publish(dir, files, points)
}

// prepare makes the mount points.
func prepare(dir string, points []MountPoint) error {
	for _, p := range points {
		if !fs.ValidPath(p.Name) || p.Name == "." || strings.Contains(p.Name, "/") || strings.HasPrefix(p.Name, reserved) {
			return fmt.Errorf("mount point %q is not a name within the volume", p.Name)
		}
		at := filepath.Join(dir, p.Name)
		if _, err := os.Lstat(at); err == nil {
			continue
		}
		if p.File {
			if err := errors.Join(os.WriteFile(at, nil, 0o600), open(at)); err != nil {
				return err
			}
			continue
		}
		if err := errors.Join(os.Mkdir(at, 0o700), open(at)); err != nil {
			return err
		}
	}
	return nil
}

func fill(version string, files Files) error {
	if err := open(version); err != nil {
		return err
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if !fs.ValidPath(path) || strings.HasPrefix(path, reserved) {
			return fmt.Errorf("%q is not a path within the volume", path)
		}
		if strings.Count(path, "/") > maxDepth {
			return fmt.Errorf("%.40q...: directories are nested more than %d deep", path, maxDepth) // Read would refuse it
		}
		dir := version
		parts := strings.Split(path, "/")
		for _, part := range parts[:len(parts)-1] {
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o700); errors.Is(err, fs.ErrExist) {
				continue
			} else if err != nil {
				return err
			}
			if err := open(dir); err != nil {
				return err
			}
		}
		name := filepath.Join(version, path)
		// The mode is set last: the umask must not count, nor a mode that
		// forbids writing.
		if err := os.WriteFile(name, files[path].Content, 0o600); err != nil {
			return err
		}
		if err := os.Chmod(name, files[path].Mode); err != nil {
			return err
		}
	}
	return nil
}

// open makes a directory, or a file, readable for the pod's other containers.
// The setgid bit stays: it is how the group of a pod's fsGroup reaches new files.
func open(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	readable := fs.FileMode(0o755)
	if !info.IsDir() {
		readable = 0o644
	}
	return os.Chmod(path, readable|info.Mode()&fs.ModeSetgid)
}

func swap(dir, version string) error {
	next := filepath.Join(dir, "..data_tmp")
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(version, next); err != nil {
		return err
	}
	return os.Rename(next, filepath.Join(dir, dataLink))
}

// publish brings the rest of dir in line with ..data: a symlink for each of
// the top-level names, the mount points, and nothing else.
func publish(dir string, files Files, points []MountPoint) error {
	current, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil {
		return err
	}
	wanted := map[string]bool{dataLink: true, current: true}
	if err := prepare(dir, points); err != nil {
		return err
	}
	for _, p := range points {
		wanted[p.Name] = true
	}
	for path := range files {
		name, _, _ := strings.Cut(path, "/")
		if wanted[name] {
			continue
		}
		wanted[name] = true
		if err := link(filepath.Join(dir, name), filepath.Join(dataLink, name)); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var failed error
	for _, entry := range entries {
		if !wanted[entry.Name()] {
			failed = errors.Join(failed, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	return failed
}

func link(name, target string) error {
	if now, err := os.Readlink(name); err == nil && now == target {
		return nil
	}
	if err := os.RemoveAll(name); err != nil {
		return err
	}
	return os.Symlink(target, name)
}
