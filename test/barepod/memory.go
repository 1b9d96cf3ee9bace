package barepod

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// hogVariable is set for the process that uses up a container's memory.
const hogVariable = "BAREPOD_HOG"

// hogLimit is the limit of a container that runs out of memory, in bytes: a round number of pages
// to the kernel, which adds a thousandth of them for each point of oom_score_adj.
const hogLimit = 64000 * 4096

// Hogging plays the process that uses up a container's memory, and reports whether this process is
// one: then it must end. A program that calls [Pod.RunOutOfMemory] calls this one first.
func Hogging() bool {
	if os.Getenv(hogVariable) == "" {
		return false
	}
	fmt.Println("ready")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until it is in the cgroup
	for memory := make([]byte, 2*hogLimit); ; {
		for at := 0; at < len(memory); at += os.Getpagesize() {
			memory[at] = 1 // a page is the kernel's to give when it is written to
		}
		time.Sleep(time.Millisecond)
	}
}

// RunOutOfMemory gives the sidecar's container a memory limit and uses it up, so that the kernel
// kills the sidecar. It returns once that has happened; false where this machine lets no cgroup be made.
func (p *Pod) RunOutOfMemory(tb testing.TB) bool {
	tb.Helper()
	group, err := newGroup(filepath.Base(p.dir) + strconv.Itoa(os.Getpid()) + filepath.Base(p.path))
	if err != nil {
		tb.Logf("no memory cgroup: %v", err)
		return false
	}
	defer group.remove()
	exits := len(p.Sidecar.Exits())
	pid := p.Sidecar.pid()
	testkit.Must(tb, errors.Join(
		group.add(pid),
		// The kernel kills it, and not the process that takes the memory.
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("1000"), 0o600),
	))
	hog := exec.Command(os.Args[0])
	hog.Env = []string{hogVariable + "=1"}
	hog.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := hog.StdinPipe()
	testkit.Must(tb, err)
	out, err := hog.StdoutPipe()
	testkit.Must(tb, err)
	testkit.Must(tb, hog.Start())
	defer func() {
		_ = hog.Process.Kill() // the kernel may have done that too
		_ = hog.Wait()
	}()
	_, err = bufio.NewReader(out).ReadString('\n')
	testkit.Must(tb, errors.Join(err, group.add(hog.Process.Pid)))
	_, err = in.Write([]byte("\n"))
	testkit.Must(tb, err)
	testkit.Eventually(tb, "the kernel kills the sidecar", func() bool { return len(p.Sidecar.Exits()) > exits })
	if n := group.kills(); n == 0 {
		tb.Error("the sidecar has ended, but not by the kernel's hand")
	}
	return true
}

func (p *Process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running.Process.Pid
}

// group is a memory cgroup, of version 1 or 2.
type group struct{ dir, events string }

func newGroup(name string) (group, error) {
	var errs []error
	for _, version := range []struct{ root, limit, events string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"},
		{"/sys/fs/cgroup", "memory.max", "memory.events"},
	} {
		dir := filepath.Join(version.root, "ampbridge-test-"+name)
		err := os.Mkdir(dir, 0o750)
		if err == nil {
			// The kernel makes a group's files with it; a plain directory has none.
			err = writeExisting(filepath.Join(dir, version.limit), strconv.Itoa(hogLimit))
			if err == nil {
				return group{dir, filepath.Join(dir, version.events)}, nil
			}
			_ = os.Remove(dir)
		}
		errs = append(errs, err)
	}
	return group{}, errors.Join(errs...)
}

func (g group) add(pid int) error {
	return writeExisting(filepath.Join(g.dir, "cgroup.procs"), strconv.Itoa(pid))
}

// kills is how many processes the kernel has killed in the group.
func (g group) kills() (n int) {
	text, err := os.ReadFile(g.events)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if count, found := strings.CutPrefix(line, "oom_kill "); found {
			n, _ = strconv.Atoi(strings.TrimSpace(count)) // the kernel writes a number
		}
	}
	return n
}

func (g group) remove() { _ = os.Remove(g.dir) } // an empty one can be removed

func writeExisting(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
