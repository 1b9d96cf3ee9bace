package barepod

import (
	"errors"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// restartPause is how long a process that has ended stays down.
const restartPause = 100 * time.Millisecond

// Process is a container: a process that is started again whenever it ends.
type Process struct {
	name    string
	command func() *exec.Cmd
	// born, if set, is called with each new process before it is waited for.
	born func(pid int)
	log  testkit.Buffer

	mu       sync.Mutex
	running  *exec.Cmd
	restarts int
	exits    []string
	stopping bool
	ended    chan struct{} // closed when it is not started again
}

// start runs the process until stop.
func (p *Process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopping, p.restarts, p.exits = false, 0, nil
	if err := p.spawn(); err != nil {
		return err
	}
	p.ended = make(chan struct{})
	go p.supervise(p.running, p.ended)
	return nil
}

// spawn starts one process. The caller holds mu.
func (p *Process) spawn() error {
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	// It ends with the test, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	if p.born != nil {
		p.born(cmd.Process.Pid)
	}
	p.running = cmd
	return nil
}

func (p *Process) supervise(cmd *exec.Cmd, ended chan struct{}) {
	defer close(ended)
	for {
		_ = cmd.Wait() // its state says how it ended
		p.mu.Lock()
		p.exits = append(p.exits, cmd.ProcessState.String())
		p.mu.Unlock()
		time.Sleep(restartPause)
		p.mu.Lock()
		if p.stopping {
			p.running = nil
			p.mu.Unlock()
			return
		}
		p.restarts++
		err := p.spawn()
		cmd = p.running
		p.mu.Unlock()
		if err != nil {
			panic("the program that ran before cannot be started: " + err.Error())
		}
	}
}

// stop ends the process as the kubelet does, and waits.
func (p *Process) stop(grace time.Duration) {
	p.mu.Lock()
	ended, running := p.ended, p.running
	p.stopping = true
	p.mu.Unlock()
	if running == nil {
		return
	}
	_ = p.Signal(syscall.SIGCONT)
	_ = p.Signal(syscall.SIGTERM)
	select {
	case <-ended:
	case <-time.After(grace):
		_ = p.Signal(syscall.SIGKILL)
		<-ended
	}
}

// Signal sends a signal to the process that runs now.
func (p *Process) Signal(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running == nil {
		return errors.New(p.name + " does not run")
	}
	return p.running.Process.Signal(signal)
}

// Restarts is how often it was started again since the pod's start.
func (p *Process) Restarts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.restarts
}

// Exits is how each of its runs since the pod's start ended.
func (p *Process) Exits() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.exits...)
}

// Log is what it has written.
func (p *Process) Log() string { return p.log.String() }

// Kill kills the process, and returns once it has ended; it is started again.
func (p *Process) Kill(tb testing.TB) {
	tb.Helper()
	before := len(p.Exits())
	testkit.Must(tb, p.Signal(syscall.SIGKILL))
	testkit.Eventually(tb, p.name+" has ended", func() bool { return len(p.Exits()) > before })
}
