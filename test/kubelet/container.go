package kubelet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

type kind int

const (
	ordinary kind = iota
	initial       // runs to completion before the ordinary ones
	sidecar       // an init container that keeps running: restartPolicy Always
)

// A Container is one container of a pod, over all its restarts. Its methods may be called from any goroutine.
type Container struct {
	pod  *Pod
	spec *corev1.Container
	kind kind
	logs *logs

	stopping chan struct{} // closed: the container is not started again
	done     chan struct{} // closed: the state no longer changes

	mu       sync.Mutex
	launched bool
	status   corev1.ContainerStatus
	proc     *process // the process of the last start
	exits    []int32
}

// process is one run of a container.
type process struct {
	cmd    *exec.Cmd
	box    sandbox
	exited chan struct{}
}

func newContainer(p *Pod, spec *corev1.Container, k kind) *Container {
	c := &Container{
		pod: p, spec: spec, kind: k,
		logs:     &logs{name: spec.Name, tee: p.log},
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
		status:   corev1.ContainerStatus{Name: spec.Name, Image: spec.Image, Started: new(false)},
	}
	c.wait("PodInitializing", "")
	return c
}

// Name is the container's name in the pod.
func (c *Container) Name() string { return c.spec.Name }

// Status returns what a kubelet would report: state, last termination, readiness, restarts.
func (c *Container) Status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return *c.status.DeepCopy()
}

// Running reports whether the container's process runs.
func (c *Container) Running() bool { return c.Status().State.Running != nil }

// Ready reports whether the container runs and has passed its startup and readiness probes.
func (c *Container) Ready() bool { return c.Status().Ready }

// Restarts returns the number of starts after the first.
func (c *Container) Restarts() int { return int(c.Status().RestartCount) }

// ExitCodes returns the exit codes of all ended runs, the oldest first. It is 128 plus the signal's number
// for a run that a signal ended, and 128 if the program could not be executed.
func (c *Container) ExitCodes() []int32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.exits)
}

// StartedAt returns when the current run began; zero if there is none.
func (c *Container) StartedAt() time.Time {
	if r := c.Status().State.Running; r != nil {
		return r.StartedAt.Time
	}
	return time.Time{}
}

// PID returns the process id of the current run; 0 if there is none.
func (c *Container) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.State.Running == nil {
		return 0
	}
	return c.proc.cmd.Process.Pid
}

// Logs returns the last mebibyte that all runs wrote to their standard output and error.
func (c *Container) Logs() string { return c.logs.String() }

// Kill sends a signal to the container's process. The restart policy decides what happens next.
func (c *Container) Kill(sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.State.Running == nil {
		return fmt.Errorf("container %s is not running", c.spec.Name)
	}
	return c.proc.cmd.Process.Signal(sig)
}

// Exec runs a command in the running container, with its root, user, environment and working directory, and
// returns the output. The end of ctx kills the command.
func (c *Container) Exec(ctx context.Context, command ...string) (string, error) {
	c.mu.Lock()
	running, proc := c.status.State.Running != nil, c.proc
	c.mu.Unlock()
	if !running {
		return "", fmt.Errorf("container %s is not running", c.spec.Name)
	}
	// The root is opened here, because only the creator of the container's user namespace may open it, and
	// not a process in a sibling namespace.
	root, err := os.Open(fmt.Sprintf("/proc/%d/root", proc.cmd.Process.Pid))
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	box := proc.box
	box.Args = command
	var out bytes.Buffer
	cmd, err := box.start(&out, root)
	if err != nil {
		return "", err
	}
	killAll := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with all processes that it started
	defer killAll()
	defer context.AfterFunc(ctx, killAll)()
	err = cmd.Wait()
	return out.String(), errors.Join(err, ctx.Err())
}

// launch keeps the container running, according to its restart policy, until stop or its last exit.
func (c *Container) launch(ctx context.Context) {
	c.mu.Lock()
	c.launched = true
	c.mu.Unlock()
	go func() {
		defer close(c.done)
		for {
			code, ended := c.runOnce(ctx)
			if c.isStopping() || ended && !c.restartsAfter(code) {
				return
			}
			if ended {
				c.wait("CrashLoopBackOff", fmt.Sprintf("back-off %s restarting failed container", c.pod.opts.RestartBackoff))
			}
			select {
			case <-time.After(c.pod.opts.RestartBackoff):
			case <-c.stopping:
				return
			}
		}
	}()
}

func (c *Container) isStopping() bool {
	select {
	case <-c.stopping:
		return true
	default:
		return false
	}
}

func (c *Container) restartsAfter(code int32) bool {
	if c.kind == sidecar {
		return true
	}
	switch c.pod.spec.Spec.RestartPolicy {
	case corev1.RestartPolicyNever:
		return false
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return c.kind == ordinary || code != 0
}

// runOnce starts the container and waits until it has ended. ended is false if the container could not be
// created.
func (c *Container) runOnce(ctx context.Context) (code int32, ended bool) {
	box, reason, err := c.sandbox(ctx)
	if err != nil {
		c.wait(reason, err.Error())
		return 0, false
	}
	defer func() { _ = os.Remove(box.Root) }()
	proc, err := c.begin(box)
	if proc == nil && err == nil { // it was stopped before the start
		return 0, false
	}
	if err != nil {
		now := metav1.Now()
		c.end(corev1.ContainerStateTerminated{ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: now, FinishedAt: now})
		return 128, true
	}
	health, cancel := context.WithCancel(ctx)
	probes := c.watchHealth(health, proc)
	err = proc.cmd.Wait()
	close(proc.exited)
	cancel()
	probes.Wait()
	// All processes that the program started are killed too, as in a real container.
	_ = syscall.Kill(-proc.cmd.Process.Pid, syscall.SIGKILL)

	state := corev1.ContainerStateTerminated{Reason: "Completed", FinishedAt: metav1.Now()}
	if ws, ok := proc.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		state.ExitCode = 128 + int32(ws.Signal())
	} else {
		state.ExitCode = int32(proc.cmd.ProcessState.ExitCode())
	}
	if state.ExitCode != 0 {
		state.Reason = "Error"
		state.Message = fmt.Sprint(err)
	}
	c.end(state)
	return state.ExitCode, true
}

// begin starts the process, unless the container is stopping.
func (c *Container) begin(box sandbox) (*process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.isStopping() {
		return nil, nil
	}
	c.status.RestartCount = int32(len(c.exits))
	cmd, err := box.start(c.logs, nil)
	if err != nil {
		return nil, err
	}
	c.proc = &process{cmd: cmd, box: box, exited: make(chan struct{})}
	c.status.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	return c.proc, nil
}

// end records the end of a run.
func (c *Container) end(state corev1.ContainerStateTerminated) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.status.State.Running; r != nil {
		state.StartedAt = r.StartedAt
	}
	c.exits = append(c.exits, state.ExitCode)
	c.status.State = corev1.ContainerState{Terminated: &state}
	c.status.LastTerminationState = corev1.ContainerState{Terminated: state.DeepCopy()}
	c.status.Started = new(false)
	c.status.Ready = c.kind == initial && state.ExitCode == 0
}

func (c *Container) wait(reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.status.State = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// stop ends the container: SIGTERM, and SIGKILL after the grace period. It returns when the process has
// ended.
func (c *Container) stop(grace time.Duration) {
	c.mu.Lock()
	if !c.isStopping() {
		close(c.stopping)
	}
	launched, proc := c.launched, c.proc
	c.mu.Unlock()
	if !launched {
		return
	}
	if proc != nil {
		proc.terminate(grace)
	}
	<-c.done
}

func (p *process) terminate(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if it has ended
	select {
	case <-p.exited:
		return
	case <-time.After(grace):
	}
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.exited
}

// sandbox resolves everything that the container's next run needs. If it fails, reason is the kubelet's name
// for the problem.
func (c *Container) sandbox(ctx context.Context) (box sandbox, reason string, err error) {
	image, ok := c.pod.opts.Images.find(c.spec.Image)
	if !ok {
		return box, "ErrImagePull", fmt.Errorf("image %s is not in Options.Images", c.spec.Image)
	}
	who := effective(c.spec.SecurityContext, c.pod.spec.Spec.SecurityContext)
	uid := image.User
	if who.user != nil {
		uid = *who.user
	}
	if who.nonRoot && uid == 0 {
		return box, "CreateContainerConfigError", errors.New("container has runAsNonRoot and image will run as root")
	}
	env, argv, err := c.pod.environment(ctx, c.spec, image)
	if err == nil && len(argv) == 0 {
		err = errors.New("no command specified, neither by the image nor by the pod")
	}
	if err != nil {
		return box, "CreateContainerConfigError", err
	}
	mounts, err := c.mounts(image, env)
	if err != nil {
		return box, "CreateContainerConfigError", err
	}
	box = sandbox{
		Mounts: mounts, Env: env, Args: argv, UID: int(uid), WorkingDir: "/",
		ReadOnlyRoot: c.spec.SecurityContext != nil && isTrue(c.spec.SecurityContext.ReadOnlyRootFilesystem),
	}
	if who.group != nil {
		box.GID = int(*who.group)
	}
	if !c.pod.spec.Spec.HostNetwork {
		box.Hostname = c.pod.hostname()
	}
	for _, dir := range []string{c.spec.WorkingDir, image.WorkingDir} {
		if dir != "" {
			box.WorkingDir = path.Clean(dir)
			break
		}
	}
	box.Root, err = os.MkdirTemp(c.pod.dir, "root-"+c.spec.Name+"-")
	return box, "CreateContainerError", err
}

// mounts returns the container's mounts, the outer ones first: those of the node and the image, then the
// pod's volumes.
func (c *Container) mounts(image Image, env []string) ([]mount, error) {
	var all []mount
	add := func(target, source string, readOnly bool) {
		target = path.Clean("/" + target)
		all = slices.DeleteFunc(all, func(m mount) bool { return m.Target == target })
		all = append(all, mount{Source: source, Target: target, ReadOnly: readOnly})
	}
	add("/etc/hosts", filepath.Join(c.pod.dir, "hosts"), false)
	if _, err := os.Stat("/etc/resolv.conf"); err == nil {
		add("/etc/resolv.conf", "/etc/resolv.conf", true)
	}
	termination := filepath.Join(c.pod.dir, "termination-log-"+c.spec.Name)
	if err := os.WriteFile(termination, nil, 0o666); err != nil {
		return nil, err
	}
	if target := c.spec.TerminationMessagePath; target != "" {
		add(target, termination, false)
	}
	for target, source := range image.Binaries {
		add(target, source, true)
	}
	for target, source := range c.pod.opts.HostFiles {
		add(target, source, true)
	}
	for _, target := range image.Volumes {
		// Each start gets a new directory, as with containerd.
		source, err := os.MkdirTemp(c.pod.dir, "image-volume-"+c.spec.Name+"-")
		if err != nil {
			return nil, err
		}
		add(target, source, false)
	}
	lookup := func(name string) (string, bool) {
		for _, kv := range env {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
	for _, m := range c.spec.VolumeMounts {
		subPath := m.SubPath
		if m.SubPathExpr != "" {
			subPath = expand(m.SubPathExpr, lookup)
		}
		v := c.pod.volumes[m.Name]
		source, err := v.source(subPath)
		if err != nil {
			return nil, fmt.Errorf("volumeMount %s: %w", m.MountPath, err)
		}
		// The kubelet mounts volumes with content read-only, even if the pod sets readOnly to false.
		add(m.MountPath, source, m.ReadOnly || v.content != nil)
	}
	slices.SortStableFunc(all, func(a, b mount) int {
		return strings.Count(a.Target, "/") - strings.Count(b.Target, "/")
	})
	return all, nil
}

// identity is the user and group of a container, from its own security context or else the pod's.
type identity struct {
	user, group *int64
	nonRoot     bool
}

func effective(own *corev1.SecurityContext, pod *corev1.PodSecurityContext) identity {
	var id identity
	if pod != nil {
		id = identity{pod.RunAsUser, pod.RunAsGroup, isTrue(pod.RunAsNonRoot)}
	}
	if own == nil {
		return id
	}
	if own.RunAsUser != nil {
		id.user = own.RunAsUser
	}
	if own.RunAsGroup != nil {
		id.group = own.RunAsGroup
	}
	if own.RunAsNonRoot != nil {
		id.nonRoot = *own.RunAsNonRoot
	}
	return id
}
