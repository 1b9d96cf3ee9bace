package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

const (
	// stopGrace is how long a process has to end by itself.
	stopGrace = 5 * time.Second
	// tailLines is how many log lines an error contains.
	tailLines = 20
	tailBytes = 64 << 10
)

// errPortTaken is in the error of a process that ended because another process listens on its port.
var errPortTaken = errors.New("address already in use")

// A process is one program of the control plane.
type process struct {
	name    string
	logFile string
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has ended
}

// startProcess starts the program with its output in dir/name.log.
func startProcess(program, name string, args []string, dir string) (*process, error) {
	p := &process{name: name, logFile: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.logFile)
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(program, args...)
	p.cmd.Dir = dir
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = procAttr()

	started := make(chan error)
	go func() {
		defer func() { _ = log.Close() }()
		// Linux sends the parent-death signal when the thread that started the child ends, and Go ends
		// threads. So this thread is kept for as long as the child runs.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err != nil {
			return
		}
		_ = p.cmd.Wait() // ProcessState shows how it ended
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// exited returns nil while the process runs. After that it returns an error with the end of its log.
func (p *process) exited() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	tail := p.logTail()
	err := fmt.Errorf("%s ended: %s; the end of %s:\n%s", p.name, p.cmd.ProcessState, filepath.Base(p.logFile), tail)
	if strings.Contains(tail, errPortTaken.Error()) {
		err = fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return err
}

// stop ends the process and all processes that it started, and waits for it.
func (p *process) stop() {
	group := -p.cmd.Process.Pid
	select {
	case <-p.done:
		return
	default:
	}
	// An error means that the process has ended already.
	_ = syscall.Kill(group, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopGrace):
		_ = syscall.Kill(group, syscall.SIGKILL)
		<-p.done
	}
}

// logTail returns the last lines of the log, or the reason why there are none.
func (p *process) logTail() string {
	content, err := os.ReadFile(p.logFile)
	if err != nil {
		return err.Error()
	}
	content = content[max(0, len(content)-tailBytes):]
	lines := strings.Split(string(bytes.TrimSpace(content)), "\n")
	return strings.Join(lines[max(0, len(lines)-tailLines):], "\n")
}
