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

// initArg0 is the argv[0] with which this program executes itself again as a container.
const initArg0 = "kubelet-init"

// File descriptors of the program that was executed again, after the standard three.
const (
	specFD   = 3 // reads the sandbox as JSON, because a pipe is not visible in /proc, unlike arguments
	statusFD = 4 // gets the error that prevented the start; a successful exec closes it
	rootFD   = 5 // the root of the container that an exec joins
)

var initCalled atomic.Bool

// Init turns this process into a container if [Run] has started it for that purpose. Otherwise it returns at
// once. Programs that call Run, and the TestMain of their tests, must call Init first, because earlier code
// also runs in every container.
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

// start runs the sandbox's program, with out as its standard output and error. It returns when the program
// itself runs, or with the error that prevented it. If root is not nil, the program joins the container with
// that root instead of getting its own.
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
		// The container gets nothing of this process's environment. The list is empty and not nil, because
		// nil would mean everything.
		Env:        []string{},
		Stdout:     out,
		Stderr:     out,
		ExtraFiles: []*os.File{specR, statusW},
		WaitDelay:  time.Second,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWUTS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: s.UID, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: s.GID, HostID: os.Getegid(), Size: 1}},
			// Mounting and chroot need these. They are ambient, because an exec by a user other than 0 drops
			// all other capabilities.
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

// startOnLastingThread starts cmd from a thread that runs as long as this program. The kernel sends the
// parent-death signal when the thread that forked ends, not when its process ends.
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

// explainRefusal adds the fix to errors of systems that do not allow ordinary users to create namespaces.
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

// enter turns this process into the container and executes its program. It returns only if that fails.
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
	// A change of credentials clears the signal that the parent has requested.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != s.Parent {
		return errors.New("the parent is gone")
	}
	return fmt.Errorf("executing %s: %w", program, unix.Exec(program, s.Args, s.Env))
}

// buildRoot makes a new file system in memory, with the sandbox's mounts, the root of this process.
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
	// A pivot of a directory onto itself puts the old root on top of the new one. There it can be detached,
	// and needs no directory of its own.
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
	// /dev is a separate mount, as in every container, so it stays writable under a read-only root.
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
	// The bind is recursive, because the kernel does not let an ordinary user see what is beneath the mounts
	// of another user.
	if err := unix.Mount(m.Source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if m.ReadOnly {
		return readOnly(target)
	}
	return nil
}

// readOnly makes an existing mount read-only. It keeps the flags that the mount inherited from another user's
// mount, because they must not be dropped.
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

// dropPrivileges removes all capabilities of this thread. It also prevents an exec from adding any, because
// user 0 would otherwise get all capabilities of the namespace.
func dropPrivileges() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	var none [2]unix.CapUserData
	return unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0])
}
