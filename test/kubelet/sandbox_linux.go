package kubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initArg0 is the argv[0] under which this program re-executes itself to become a container.
const initArg0 = "kubelet-init"

// File descriptors of the re-executed program, after the standard three.
const (
	specFD   = 3 // reads the sandbox as JSON: unlike arguments, a pipe is not visible in /proc
	statusFD = 4 // takes the error that kept the container from starting; closed by a successful exec
	rootFD   = 5 // the root of the container that an exec joins
)

var initCalled atomic.Bool

// Init turns this process into a container when [Run] re-executed it for that purpose, and returns at once otherwise.
// Programs that call Run, and the TestMain of tests that do, call it before anything else: code that runs earlier runs
// in every container too.
func Init() {
	initCalled.Store(true)
	if os.Args[0] != initArg0 {
		return
	}
	// Capabilities and the parent-death signal belong to a thread.
	runtime.LockOSThread()
	err := enter()
	if _, werr := io.WriteString(os.NewFile(statusFD, "status"), err.Error()); werr != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(128)
}

// start runs the sandbox's program, with out as its standard output and error. It returns once the program itself
// executes, or the error that kept it from doing so. With a root, the program joins the container whose root that is
// instead of getting one of its own.
func (s sandbox) start(out io.Writer, root *os.File) (*exec.Cmd, error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = specR.Close(); _ = specW.Close() }()
	statusR, statusW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = statusR.Close(); _ = statusW.Close() }()

	s.Parent = os.Getpid()
	s.Join = root != nil
	cmd := &exec.Cmd{
		Path: "/proc/self/exe",
		Args: []string{initArg0},
		// Nothing of this process's environment reaches the container; empty rather than nil, which would mean all of it.
		Env:        []string{},
		Stdout:     out,
		Stderr:     out,
		ExtraFiles: []*os.File{specR, statusW},
		WaitDelay:  time.Second,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: s.UID, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: s.GID, HostID: os.Getegid(), Size: 1}},
			// What mounting and chroot need. Ambient, because an exec by a user other than 0 loses all other capabilities.
			AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT},
			Pdeathsig:   syscall.SIGKILL,
			Setpgid:     true,
		},
	}
	if root != nil {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWUSER
		cmd.ExtraFiles = append(cmd.ExtraFiles, root)
	}
	if err := startOnLastingThread(cmd); err != nil {
		return nil, explainRefusal(fmt.Errorf("starting a process in a user namespace: %w", err))
	}
	_ = statusW.Close()
	err = json.NewEncoder(specW).Encode(s)
	_ = specW.Close()
	if err == nil {
		var msg []byte
		if msg, err = io.ReadAll(statusR); err == nil && len(msg) > 0 {
			err = errors.New(string(msg))
		}
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	return cmd, nil
}

// startOnLastingThread starts cmd from a thread that lives as long as this program, because the kernel sends the
// parent-death signal when the thread that forked ends, not when its process does.
func startOnLastingThread(cmd *exec.Cmd) error {
	err := make(chan error)
	forks() <- func() { err <- cmd.Start() }
	return <-err
}

var forks = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// explainRefusal adds the way out to errors of systems that do not let ordinary users create namespaces.
func explainRefusal(err error) error {
	for _, refusal := range []error{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL} {
		if errors.Is(err, refusal) {
			return fmt.Errorf("%w (this machine seems to refuse user namespaces; allow them with "+
				"sysctl user.max_user_namespaces=15000, on Debian also kernel.unprivileged_userns_clone=1, "+
				"on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; container runtimes refuse them by their seccomp profile)", err)
		}
	}
	return err
}

// enter makes this process the container and executes its program; it returns only when that fails.
func enter() error {
	var s sandbox
	spec := os.NewFile(specFD, "spec")
	if err := json.NewDecoder(spec).Decode(&s); err != nil {
		return fmt.Errorf("reading the sandbox: %w", err)
	}
	_ = spec.Close()
	unix.CloseOnExec(statusFD)
	unix.CloseOnExec(rootFD)
	unix.Umask(0o022)
	if s.Join {
		if err := errors.Join(unix.Fchdir(rootFD), unix.Chroot(".")); err != nil {
			return fmt.Errorf("joining the container: %w", err)
		}
	} else if err := s.buildRoot(); err != nil {
		return err
	}
	if err := os.Chdir(s.WorkingDir); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	os.Clearenv()
	for _, kv := range s.Env {
		k, v, _ := strings.Cut(kv, "=")
		if err := os.Setenv(k, v); err != nil {
			return fmt.Errorf("environment variable %q: %w", k, err)
		}
	}
	program, err := exec.LookPath(s.Args[0]) // in the container's PATH
	if err != nil {
		return fmt.Errorf("command: %w", err)
	}
	if err := dropPrivileges(); err != nil {
		return fmt.Errorf("dropping privileges: %w", err)
	}
	// Changed credentials clear the signal that the parent asked for.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != s.Parent {
		return errors.New("the parent is gone")
	}
	return fmt.Errorf("executing %s: %w", program, unix.Exec(program, s.Args, s.Env))
}

// buildRoot makes an empty memory file system with the sandbox's mounts this process's root.
func (s sandbox) buildRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return explainRefusal(fmt.Errorf("making mounts private: %w", err))
	}
	if err := unix.Mount("tmpfs", s.Root, "tmpfs", unix.MS_NOSUID, "mode=0755"); err != nil {
		return explainRefusal(fmt.Errorf("mounting a root file system: %w", err))
	}
	if err := s.makeDev(); err != nil {
		return fmt.Errorf("making /dev: %w", err)
	}
	tmp := filepath.Join(s.Root, "tmp")
	if err := errors.Join(os.Mkdir(tmp, 0o777), os.Chmod(tmp, 0o777|os.ModeSticky)); err != nil {
		return err
	}
	for _, m := range append([]mount{{Source: "/proc", Target: "/proc"}}, s.Mounts...) {
		if err := m.bind(s.Root); err != nil {
			return fmt.Errorf("mounting %s: %w", m.Target, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(s.Root, s.WorkingDir), 0o755); err != nil {
		return fmt.Errorf("working directory: %w", err)
	}
	if s.Hostname != "" {
		if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
			return fmt.Errorf("setting the host name: %w", err)
		}
	}
	// Pivoting a directory onto itself stacks the old root on the new one, where it can be detached without a place for it.
	if err := os.Chdir(s.Root); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the old root: %w", err)
	}
	if s.ReadOnlyRoot {
		return readOnly("/")
	}
	return nil
}

func (s sandbox) makeDev() error {
	dev := filepath.Join(s.Root, "dev")
	if err := os.Mkdir(dev, 0o755); err != nil {
		return err
	}
	// A mount of its own, as in every container: it stays writable under a read-only root.
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return err
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		if err := (mount{Source: "/dev/" + name, Target: "/dev/" + name}).bind(s.Root); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"} {
		if err := os.Symlink("/proc/self/fd"+target, filepath.Join(dev, name)); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(dev, "shm"), 0o777)
}

func (m mount) bind(root string) error {
	target := filepath.Join(root, m.Target)
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o755)
	} else if _, err = os.Lstat(target); errors.Is(err, os.ErrNotExist) {
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return err
	}
	// Recursive, because the kernel does not let an ordinary user look beneath the mounts of another.
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if m.ReadOnly {
		return readOnly(target)
	}
	return nil
}

// readOnly makes an existing mount read-only. Flags that the mount inherited from another user's may not be dropped.
func readOnly(target string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return err
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY)
	for inherited, ms := range map[int64]uintptr{
		unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC,
		unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
	} {
		if st.Flags&inherited != 0 {
			flags |= ms
		}
	}
	if err := unix.Mount("", target, "", flags, ""); err != nil {
		return fmt.Errorf("making it read-only: %w", err)
	}
	return nil
}

// dropPrivileges leaves this thread without capabilities. It may not gain any by an exec either, which would give user 0
// all of the namespace's.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}
