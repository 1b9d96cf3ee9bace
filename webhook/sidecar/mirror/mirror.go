// Package mirror copies a directory of configuration files into another one. It uses
// the layout of the volumes that the kubelet fills, so that programs that
// watch the copy see the same changes as in the original:
//
//	prometheus.yml -> ..data/prometheus.yml
//	..data -> ..2026_01_02_15_04_05.1234567890
//	..2026_01_02_15_04_05.1234567890/prometheus.yml
//
// A new set of files becomes visible in one step, the rename of ..data. The kubelet does
// the same (k8s.io/kubernetes/pkg/volume/util.AtomicWriter), and config-reloaders wait for
// exactly this event.
//
// Files are compared and copied in pieces, so that a volume of many large files
// needs no more memory than one of few. Only the file that is edited is read as a whole.
// An unchanged file is not copied: the new set links to it.
package mirror

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	dataLink = "..data"
	// reserved is the prefix of names that belong to the layout.
	reserved = ".."
	// maxDepth limits directories that contain themselves through a symlink.
	maxDepth = 32
)

// Served reports whether dir holds a set of files that Mirror has completed.
func Served(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, dataLink))
	return err == nil && info.IsDir()
}

// Swapped returns when the files in dir became visible; zero if there are none.
func Swapped(dir string) time.Time {
	info, err := os.Lstat(filepath.Join(dir, dataLink))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Fingerprint returns a text that changes if the content of dir may have changed.
// It is cheap, because it reads only names, sizes and times.
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

// dataDir returns the directory that ..data points to, or dir itself if it has
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

// attempts is how often Mirror starts again if the files are replaced while it
// reads them.
const attempts = 4

var errChanging = errors.New("the directory's content changes faster than it can be read")

// Mirror makes target show the content of source, in one step, and reports whether anything
// changed. It follows symlinks in source. edit gets the content of one file, if
// source has it, and returns what target shows instead. An
// error of edit ends Mirror. file is a slash-separated path; if empty, no file is edited.
//
// If the kubelet replaces the content of source in the meantime, Mirror starts again, and calls
// edit again. So target never shows a mix of old and new files.
//
// Mount points are created beside the files, and stay, because to remove one would remove the mount
// in the container that uses it. They hide files of the same name, as the mount does.
//
// Before that step, nothing visible in target changes. After a crash, or if the volume is full,
// the old files stay. The next Mirror removes what a crash has left behind.
func Mirror(source, target, file string, edit func(content []byte) ([]byte, error), points ...MountPoint) (changed bool, err error) {
	for range attempts {
		base, err := dataDir(source)
		if err != nil {
			return changed, err
		}
		// A directory that is being removed can be read without an error and lack files.
		stable := func() error {
			if now, err := dataDir(source); err != nil || now != base {
				return errors.Join(errChanging, err)
			}
			return nil
		}
		swapped, err := mirror(base, target, file, edit, points, stable)
		changed = changed || swapped
		if err == nil || stable() == nil {
			return changed, err
		}
	}
	return changed, errChanging
}

// mirror is one attempt. It ends if stable fails before the swap.
func mirror(
	base, target, file string, edit func([]byte) ([]byte, error), points []MountPoint, stable func() error,
) (changed bool, err error) {
	files, err := list(base)
	if err != nil {
		return false, err
	}
	for _, f := range files {
		if f.path == file {
			if err := f.edit(edit); err != nil {
				return false, err
			}
		}
	}
	current := "" // there is none
	if Served(target) {
		if current, err = dataDir(target); err != nil {
			return false, err
		}
	}
	same, err := compare(files, current)
	if err = errors.Join(err, stable()); err != nil {
		return false, err
	}
	if same {
		return false, publish(target, files, points)
	}
	// The pod's other containers wait for the first swap and need the mount points then.
	if err := prepare(target, points); err != nil {
		return false, err
	}
	version, err := os.MkdirTemp(target, time.Now().UTC().Format(reserved+"2006_01_02_15_04_05."))
	if err != nil {
		return false, err
	}
	err = fill(version, files, current)
	if err == nil {
		err = stable()
	}
	if err == nil {
		err = swap(target, filepath.Base(version))
	}
	if err != nil {
		return false, errors.Join(err, os.RemoveAll(version))
	}
	return true, publish(target, files, points)
}

// file is a file to mirror.
type file struct {
	path string // in the volume, slash-separated
	name string // where it is read
	mode fs.FileMode
	size int64
	// content is the content of the edited file. Other files are read in pieces.
	content []byte
	edited  bool
	// same is true if the current set has the file unchanged.
	same bool
}

// list returns the files of a directory.
func list(base string) (files []*file, err error) {
	err = walk(base, "", 0, func(path, name string, info fs.FileInfo) error {
		files = append(files, &file{path: path, name: name, mode: info.Mode().Perm(), size: info.Size()})
		return nil
	})
	return files, err
}

func (f *file) edit(edit func([]byte) ([]byte, error)) error {
	content, err := os.ReadFile(f.name)
	if err != nil {
		return err
	}
	f.content, err = edit(content)
	f.size, f.edited = int64(len(f.content)), true
	return err
}

func (f *file) open() (io.ReadCloser, error) {
	if f.edited {
		return io.NopCloser(bytes.NewReader(f.content)), nil
	}
	return os.Open(f.name)
}

// compare sets same on files that the current set has unchanged, and reports whether
// both sets consist of just these files.
func compare(files []*file, current string) (same bool, err error) {
	if current == "" {
		return false, nil
	}
	others, err := list(current)
	same = err == nil && len(others) == len(files) // what cannot be read is replaced
	buffer := make([]byte, 64<<10)
	for _, f := range files {
		if f.same, err = f.equals(filepath.Join(current, f.path), buffer); err != nil {
			return false, err
		}
		same = same && f.same
	}
	return same, nil
}

// equals reports whether the file at that path has the content and mode of f. It fails only if
// f cannot be read.
func (f *file) equals(path string, buffer []byte) (bool, error) {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != f.mode || info.Size() != f.size {
		return false, nil
	}
	there, err := os.Open(path)
	if err != nil {
		return false, nil
	}
	defer func() { _ = there.Close() }() // only read
	here, err := f.open()
	if err != nil {
		return false, err
	}
	defer func() { _ = here.Close() }() // only read
	wanted, found := buffer[:len(buffer)/2], buffer[len(buffer)/2:]
	for {
		n, err := io.ReadFull(here, wanted)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return false, err
		}
		m, _ := io.ReadFull(there, found) // a file that cannot be read has a shorter content
		if !bytes.Equal(wanted[:n], found[:m]) {
			return false, nil
		}
		if end {
			return true, nil
		}
	}
}

// prepare creates the mount points.
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

// fill creates a new set of files in the directory version.
func fill(version string, files []*file, current string) error {
	if err := open(version); err != nil {
		return err
	}
	for _, f := range files {
		dir := version
		parts := strings.Split(f.path, "/")
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
		name := filepath.Join(version, f.path)
		// Never link the edited file, because a program may hold the old one open and empty it.
		if f.same && !f.edited && os.Link(filepath.Join(current, f.path), name) == nil {
			continue
		}
		if err := f.copy(name); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) copy(name string) error {
	from, err := f.open()
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }() // only read
	to, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	// Set the mode last, so that neither the umask nor a read-only mode interferes.
	return errors.Join(err, to.Chmod(f.mode), to.Close())
}

// open makes a directory or file readable for the pod's other containers.
// It keeps the setgid bit, because that passes the group of the pod's fsGroup on to new files.
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

// publish creates a symlink for each of the top-level names in ..data, and the mount points. It
// removes everything else in dir.
func publish(dir string, files []*file, points []MountPoint) error {
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
	for _, f := range files {
		name, _, _ := strings.Cut(f.path, "/")
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
