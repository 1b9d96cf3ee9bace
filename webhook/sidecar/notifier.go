package sidecar

import (
	"errors"
	"os"
	"time"
)

// inodeNotifier wakes programs that watch the configuration file instead of its
// directory, as prometheus-config-reloader does for --config-file. Their watch
// is on the file that they found when they started. It tells them that this file
// was replaced, and ends with it: of a second change they would learn minutes
// later. So the replaced files are kept open, which keeps the watches alive, and
// touched whenever there is something new.
type inodeNotifier struct {
	current  *os.File
	replaced []replaced
}

// replaced is a file that was in use until a time.
type replaced struct {
	*os.File
	until time.Time
}

// drained is how long after its replacement nobody can be reading a file any
// more.
const drained = time.Minute

// maxReplaced bounds the open files. Most are empty by then; a watch on one
// that is closed is lost, which costs its owner minutes and nothing else.
const maxReplaced = 256

// touch is called after each change with the path of the file in use. What
// cannot be kept open is not watched.
func (n *inodeNotifier) touch(path string, now time.Time) error {
	next, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		next, err = os.Open(path)
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, file := range n.replaced {
		// Its memory counts as the pod's. Some are not writable; all can be touched.
		if now.Sub(file.until) > drained {
			_ = file.Truncate(0)
		}
		info, err := file.Stat()
		if err == nil {
			err = file.Chmod(info.Mode().Perm())
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if n.current != nil {
		n.replaced = append(n.replaced, replaced{n.current, now})
	}
	n.current = next
	if len(n.replaced) > maxReplaced {
		errs = append(errs, n.replaced[0].Close())
		n.replaced = n.replaced[1:]
	}
	return errors.Join(errs...)
}

// close lets go of all.
func (n *inodeNotifier) close() error {
	var errs []error
	if n.current != nil {
		errs = append(errs, n.current.Close())
	}
	for _, file := range n.replaced {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
