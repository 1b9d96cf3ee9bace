//go:build linux

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ampbridge/ampbridge/test/node/preflight"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	stageVariable = "AMPBRIDGE_NODE_STAGE"
	dirVariable   = "AMPBRIDGE_NODE_DIR"
	// The stages of one run. Each is a separate process.
	stageInit, stageTests = "init", "tests"

	dirPrefix = "ampbridge-node-"
	lockName  = "lock"
)

// A Setup is what the tests of a package need in addition to a node.
type Setup struct {
	// Needs maps programs that must be in PATH, in addition to the node's own, to their Debian packages.
	Needs map[string]string
	// Tools are programs of package tools, in addition to the node's own.
	Tools []string
	// Prepare, if set, runs before the namespaces are created, so it can use the machine's network, for
	// example to build images. dir is the result of [Dir].
	Prepare func(ctx context.Context, dir string) error
}

// Main runs the tests of a package in separate namespaces, and returns the exit status. It executes the test
// binary again twice: as the first process of the new process namespace, and then, from there, as the tests.
func Main(m *testing.M, setup Setup) int {
	var err error
	status := 0
	switch os.Getenv(stageVariable) {
	case stageTests:
		return m.Run()
	case stageInit:
		status, err = initProcess()
	default:
		status, err = outside(setup)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "node:", err)
		return 1
	}
	return status
}

// Dir returns the directory of the whole run, which is removed at its end. It is empty outside of a run.
func Dir() string { return os.Getenv(dirVariable) }

// cgroupName returns the name of the parent of all pods' cgroups in each hierarchy.
func cgroupName() string { return filepath.Base(Dir()) }

// outside prepares what needs the machine, starts the namespaces, and cleans up after them.
func outside(setup Setup) (status int, err error) {
	// The kernel ends the child when the thread that started it ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := preflight.Check(setup.Needs); err != nil {
		return 0, err
	}
	removeStale()
	dir, unlock, err := newDir()
	if err != nil {
		return 0, err
	}
	defer unlock()
	defer func() { err = errors.Join(err, remove(dir)) }()
	for _, name := range append(Tools(), setup.Tools...) {
		if _, err := tools.Find(ctx, name, os.Stderr); err != nil {
			return 0, err
		}
	}
	if err := buildPause(ctx, dir); err != nil {
		return 0, err
	}
	if setup.Prepare != nil {
		if err := setup.Prepare(ctx, dir); err != nil {
			return 0, err
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stageInit, dirVariable+"="+dir, "TMPDIR="+filepath.Join(dir, "tmp"))
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
		Pdeathsig:  syscall.SIGKILL,
	}
	return exitStatus(cmd.Run())
}

// exitStatus distinguishes a process that ended with a status from one that did not run.
func exitStatus(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// newDir creates the run's directory and locks it. The lock shows that the directory is in use; the kernel
// releases it also if the process is killed.
func newDir() (dir string, unlock func(), err error) {
	if dir, err = os.MkdirTemp("", dirPrefix); err != nil {
		return "", nil, err
	}
	// The directories must be readable, because pods run as other users.
	for _, d := range []string{dir, filepath.Join(dir, "tmp")} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o755)); err != nil {
			return "", nil, err
		}
	}
	file, err := lock(dir)
	if err != nil {
		return "", nil, err
	}
	return dir, func() { _ = file.Close() }, nil
}

func lock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// removeStale removes what killed runs have left: files and empty cgroups. The kernel has removed everything
// else. Errors are ignored, because they do not affect this run.
func removeStale() {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+"*"))
	if err != nil {
		return
	}
	for _, dir := range dirs {
		if file, err := lock(dir); err == nil {
			_ = remove(dir)
			_ = file.Close()
		}
	}
}

// remove deletes a run's directory and its cgroups.
func remove(dir string) error {
	errs := []error{os.RemoveAll(dir)}
	for _, root := range preflight.CgroupRoots() {
		var found []string
		root = filepath.Join(root, filepath.Base(dir))
		_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err == nil && entry.IsDir() {
				found = append(found, path)
			}
			return nil
		})
		// The kernel removes the files of a cgroup with the cgroup. Children must be removed first.
		for _, path := range slices.Backward(found) {
			errs = append(errs, syscall.Rmdir(path))
		}
	}
	return errors.Join(errs...)
}

// initProcess is the first process of the namespaces. It sets them up, runs the tests, and reaps their
// orphaned processes. Its end ends everything in the namespaces.
func initProcess() (status int, err error) {
	if err := mounts(Dir()); err != nil {
		return 0, err
	}
	if err := network(); err != nil {
		return 0, err
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), stageVariable+"="+stageTests)
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	for {
		var ended syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ended, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait: %w", err)
		case pid != cmd.Process.Pid:
		case ended.Exited():
			return ended.ExitStatus(), nil
		default:
			return 0, fmt.Errorf("the tests ended: %s", ended.Signal())
		}
	}
}

// kernelSettings are settings of the whole machine that a kubelet changes at its start. The kubelet reads
// them from files that already have the values it wants, so the machine stays unchanged.
var kernelSettings = map[string]string{
	"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
	"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
}

// mounts separates the directories that the node's programs write to: /run, and, in memory, their additions
// to /etc and /var.
func mounts(dir string) error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	private := filepath.Join(dir, "private")
	if err := os.Mkdir(private, 0o755); err != nil {
		return err
	}
	for _, path := range []string{private, "/run"} {
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount a tmpfs at %s: %w", path, err)
		}
	}
	for _, path := range []string{"/etc", "/var"} {
		upper, work := filepath.Join(private, path, "upper"), filepath.Join(private, path, "work")
		if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
			return err
		}
		if err := unix.Mount(
			"overlay",
			path,
			"overlay",
			0,
			fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", path, upper, work),
		); err != nil {
			return fmt.Errorf("mount an overlay at %s: %w", path, err)
		}
	}
	for name, value := range kernelSettings {
		shown := filepath.Join(private, strings.ReplaceAll(name, "/", "."))
		if err := os.WriteFile(shown, []byte(value), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(shown, "/proc/sys/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("hide /proc/sys/%s: %w", name, err)
		}
	}
	for _, root := range preflight.CgroupRoots() {
		if err := os.Mkdir(filepath.Join(root, filepath.Base(dir)), 0o755); err != nil {
			return fmt.Errorf("make a cgroup for the pods: %w", err)
		}
	}
	return nil
}

func onOverlay(dir string) bool {
	var stat unix.Statfs_t
	return unix.Statfs(dir, &stat) == nil && stat.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// network gives the node its address. Its interface has no connection, because there is no other machine.
func network() error {
	for _, command := range []string{
		"ip link set lo up",
		"ip link add node0 type bridge",
		"ip address add " + Address + "/24 dev node0",
		"ip address add " + SecondAddress + "/24 dev node0",
		"ip address add " + ThirdAddress + "/24 dev node0",
		"ip link set node0 up",
		// Packets to Services seem to go here, before kube-proxy's rules rewrite them.
		"ip route add " + serviceRange + " dev node0 src " + Address,
		// This fails immediately if the kernel does not support what kube-proxy needs.
		"iptables -t nat -A OUTPUT -m comment --comment ampbridge -m addrtype --dst-type LOCAL -m mark --mark 1 -j RETURN",
	} {
		words := strings.Fields(command)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(string(out)))
		}
	}
	if err := unix.Sethostname([]byte(Name)); err != nil {
		return fmt.Errorf("set the host name: %w", err)
	}
	return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o644)
}
