package sidecar

import (
	"errors"
	"os"
	"time"
)

// inodeNotifier wakes programs that watch the configuration file and not its
// directory, as prometheus-config-reloader does for --config-file. They watch
// the file that existed when they started. When that file is replaced, they get one event, and
// then the watch ends with the file: they would see a second change minutes
// later. So the notifier keeps replaced files open, which keeps the watches alive, and
// touches them at each change.
type inodeNotifier struct {
	current  *os.File
	replaced []replaced
}

// replaced is a file that was in use until a certain time.
type replaced struct {
	*os.File
	until time.Time
}

// drained is the time after which no program can still be reading a replaced
// file.
const drained = time.Minute

// maxReplaced limits the open files. Most of them are empty by then. If a file with a watch
// is closed, its program sees changes minutes later, which does no harm.
const maxReplaced = 256

// touch is called after each change with the path of the current file. If it cannot keep
// the file open, it returns an error, and watches of that file get no events.
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
		// Empty the file, because its memory counts against the pod's. Files that are not writable can
		// still be touched.
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

// close closes all files.
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
