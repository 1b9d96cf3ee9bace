//go:build !linux

package kubelet

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"sync/atomic"
)

var initCalled atomic.Bool

// Init does nothing, like its Linux version in a process that [Run] has not started.
func Init() { initCalled.Store(true) }

func (s sandbox) start(io.Writer, *os.File) (*exec.Cmd, error) {
	return nil, errors.New("it runs containers in Linux namespaces; this system has none")
}
