package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	heartbeat = 15 * time.Second
	lockPoll  = 200 * time.Millisecond
	// errorLines is how much of the compiler's output an error carries.
	errorLines = 20
)

// buildArgs are the arguments of the go command, but for the output's path.
// The module is only read, so a build never changes the work tree.
func (t Tool) buildArgs() []string {
	args := []string{"build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", t.LDFlags}
	if t.Tags != "" {
		args = append(args, "-tags", t.Tags)
	}
	return append(args, t.Package)
}

// build makes the program at path. Only one build runs per cache at a time:
// test packages that run side by side want the same programs, and two builds
// of Kubernetes at once need more memory than small machines have.
func (t Tool) build(ctx context.Context, root, path string, progress io.Writer) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	unlock, err := lock(ctx, filepath.Join(dir, "build.lock"), func() {
		say(progress, "waiting for another build in %s, then for %s", dir, t.Name)
	})
	if err != nil {
		return fmt.Errorf("tools: %s: %w", t.Name, err)
	}
	defer unlock()
	if executable(path) { // built while this process waited
		return nil
	}

	// The program appears under its name complete or not at all.
	work, err := os.MkdirTemp(dir, "."+t.Name+"-")
	if err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	defer func() { _ = os.RemoveAll(work) }()
	fresh := filepath.Join(work, t.Name)
	if err := t.download(ctx, root, fresh, progress); err != nil {
		if !errors.Is(err, errNoDownload) {
			say(progress, "%s is built, because it cannot be downloaded: %v", t.Name, err)
		}
		if err := t.compile(ctx, root, fresh, progress); err != nil {
			return err
		}
	}
	if err := os.Rename(fresh, path); err != nil {
		return fmt.Errorf("tools: %w", err)
	}
	return nil
}

func (t Tool) compile(ctx context.Context, root, output string, progress io.Writer) error {
	args := t.buildArgs()
	cmd := exec.CommandContext(ctx, "go", append([]string{args[0], "-o", output}, args[1:]...)...)
	cmd.Dir = t.moduleDir(root)
	// GOFLAGS and a workspace are the caller's, for the caller's module.
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off", "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// The go command's compilers must end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }

	start := time.Now()
	say(
		progress,
		"building %s %s from %s; the first time this takes about %s on two cores",
		t.Name,
		t.Version,
		t.Source,
		minutes(t.ColdBuild),
	)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("tools: building %s: %w", t.Name, err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ticker := time.NewTicker(heartbeat)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			say(progress, "still building %s, %s so far", t.Name, time.Since(start).Round(time.Second))
		case err := <-done:
			if ctx.Err() != nil {
				return fmt.Errorf("tools: building %s: %w", t.Name, context.Cause(ctx))
			}
			if err != nil {
				return fmt.Errorf(
					"tools: building %s: %w; the module is %s; go said:\n%s",
					t.Name,
					err,
					cmd.Dir,
					lastLines(out.String(), errorLines),
				)
			}
			say(progress, "built %s in %s", t.Name, time.Since(start).Round(time.Second))
			return nil
		}
	}
}

// lock takes the advisory lock on path and returns what gives it back. While
// another holds it, it calls waiting, at once and with every heartbeat. The
// kernel frees the lock of a process that dies, and the file itself stays.
func lock(ctx context.Context, path string, waiting func()) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	var told time.Time
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = file.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if time.Since(told) >= heartbeat {
			waiting()
			told = time.Now()
		}
		select {
		case <-ctx.Done():
			_ = file.Close()
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
}

func say(w io.Writer, format string, args ...any) {
	// Progress that nobody can read is no reason to fail.
	_, _ = fmt.Fprintf(w, "tools: "+format+"\n", args...)
}

func minutes(d time.Duration) string {
	if d <= time.Minute {
		return "a minute"
	}
	return fmt.Sprintf("%.0f minutes", d.Minutes())
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
