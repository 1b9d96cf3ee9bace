package sidecar

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// firstLimit is how long the first configuration may fail to be served. After that,
// Run ends, so that the reason becomes the container's termination message.
// Otherwise the pod would look as if it were still starting.
const firstLimit = 20 * time.Second

// explain returns an error about serving the configuration, with the fix.
func (s *server) explain(err error) error {
	var at *fs.PathError
	if !errors.As(err, &at) || !errors.Is(err, fs.ErrPermission) || !inside(at.Path, s.config.Source) {
		return fmt.Errorf("cannot serve Prometheus's configuration: %w", err)
	}
	return fmt.Errorf("cannot read %s of the volume that holds Prometheus's configuration, as user %d and group %d%s: "+
		"%w. Fix, in the pod: set defaultMode: 0444 on that volume, or defaultMode: 0440 together with "+
		"securityContext.fsGroup, or set securityContext.runAsUser to the file's owner", s.inSource(at.Path), os.Getuid(), os.Getgid(),
		ownership(at.Path), at.Err)
}

// inside reports whether a path is a directory or is inside it.
func inside(path, dir string) bool {
	relative, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(relative)
}

// inSource returns the name of a file of the source, as the user knows it.
func (s *server) inSource(path string) string {
	relative, err := filepath.Rel(s.config.Source, path)
	if err != nil {
		return path
	}
	// The kubelet adds the first part of the path.
	if first, rest, _ := strings.Cut(relative, "/"); strings.HasPrefix(first, "..") {
		relative = rest
	}
	if relative == "" || relative == "." {
		return "the directory"
	}
	return "the file " + relative
}

// ownership describes who may read a file; empty if that is not known.
func ownership(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf(" (mode %04o, owner %d, group %d)", info.Mode().Perm(), owner.Uid, owner.Gid)
}
