package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

const (
	// beatEvery is how often the watchdog checks the loop.
	beatEvery = 5 * time.Second
	// beatLimit is the largest allowed age of a heartbeat. The loop beats several times
	// a second, and waits at most editLimit for an edit.
	beatLimit = time.Minute
	// maxStacks limits the logged stacks of a process that hangs, in bytes.
	maxStacks = 16 << 10
)

// heartbeat returns the path of the file that the watchdog renews, in a memory volume; empty if
// there is no such volume.
func (o Options) heartbeat() string {
	dir := o.Credentials
	if c, err := o.decode(); err == nil {
		dir = filepath.Dir(c.Credentials)
	}
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, sidecarconfig.HeartbeatFile)
}

// Alive returns an error if the heartbeat is too old, because the loop or the whole
// process hangs. Without a heartbeat it returns nil: the startup
// probe handles a process that has not started completely.
func Alive(o Options) error {
	heartbeat := o.heartbeat()
	info, err := os.Stat(heartbeat)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if age := time.Since(info.ModTime()); age > beatLimit {
		return fmt.Errorf("the sidecar hangs: its last heartbeat (%s) is %s old", heartbeat, age.Round(time.Second))
	}
	return nil
}

// watchdog renews the heartbeat while the loop moves. The liveness
// probe reads the heartbeat.
func (s *server) watchdog(ctx context.Context, heartbeat string) {
	told := false // whether this stop of the loop was logged
	for {
		stopped := s.idle()
		switch {
		case stopped < beatLimit:
			told = false
			if err := touch(heartbeat); err != nil {
				s.log.Warn("cannot write the heartbeat: the liveness probe may restart the sidecar", "error", err)
			}
		case !told:
			told = true
			stacks := make([]byte, maxStacks)
			stacks = stacks[:runtime.Stack(stacks, true)]
			s.log.Error(
				"the configuration loop hangs: the liveness probe will restart the sidecar",
				"seconds",
				stopped.Seconds(),
				"stacks",
				string(stacks),
			)
		}
		if !sleep(ctx, beatEvery) {
			return
		}
	}
}

// idle returns the time since the loop last moved.
func (s *server) idle() time.Duration { return time.Since(s.started) - time.Duration(s.beat.Load()) }

// touch sets a file's time to now. It creates the file if it does not exist.
func touch(name string) error {
	now := time.Now()
	err := os.Chtimes(name, now, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return file.Close()
}
