//go:build linux

package main_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// program is the built program.
var program string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "config-sidecar")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Another user has to run it.
	if err := os.Chmod(dir, 0o755); err != nil {
		panic(err)
	}
	program = filepath.Join(dir, "config-sidecar")
	if err := tools.GoBuild(context.Background(), program, "."); err != nil {
		panic(err)
	}
	return m.Run()
}

// pod is the volumes of a pod, and the sidecar's program in it.
type pod struct {
	config sidecarconfig.Config
	cmd    *exec.Cmd
	stderr testkit.Buffer
}

func newPod(t *testing.T) *pod {
	t.Helper()
	dir, err := os.MkdirTemp("", "pod") //nolint:usetesting // t.TempDir's parent is closed to other users
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	d := policy.Destination{Name: "central"}
	if err := d.Workspace.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-central")); err != nil {
		t.Fatal(err)
	}
	p := &pod{config: sidecarconfig.Config{
		Version:        sidecarconfig.VersionSigV4,
		Cluster:        "dev",
		SessionSeconds: 3600,
		File:           "prometheus.yml",
		Source:         filepath.Join(dir, "source"),
		Target:         filepath.Join(dir, "target"),
		Credentials:    filepath.Join(dir, "credentials", "credentials"),
		Token:          filepath.Join(dir, "token"),
		STS:            sidecarconfig.STS{Endpoint: "http://127.0.0.1:1"},
		Destinations: []sidecarconfig.Destination{
			{Name: d.Name, Role: "arn:aws:iam::111122223333:role/writer", Region: "eu-west-1", Block: d.Block("dev")},
		},
	}}
	for _, d := range []string{dir, p.config.Source, p.config.Target, filepath.Dir(p.config.Credentials)} {
		if err := errors.Join(os.MkdirAll(d, 0o755), os.Chmod(d, 0o777)); err != nil {
			t.Fatal(err)
		}
	}
	p.write(t, p.config.File, 0o644)
	return p
}

// write makes a file of the user's.
func (p *pod) write(t *testing.T, name string, mode os.FileMode) {
	t.Helper()
	name = filepath.Join(p.config.Source, name)
	if err := errors.Join(
		os.MkdirAll(filepath.Dir(name), 0o755),
		os.WriteFile(name, []byte("global: {}\n"), 0o600),
		os.Chmod(name, mode),
	); err != nil {
		t.Fatal(err)
	}
}

func (p *pod) command(args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Env = []string{sidecarconfig.Variable + "=" + p.config.Encode()}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	return cmd
}

func (p *pod) start(t *testing.T) {
	t.Helper()
	p.cmd = p.command()
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.cmd.Process.Kill() })
}

func (p *pod) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// alive asks as the liveness probe does.
func (p *pod) alive() error { return p.command("alive").Run() }

// TestUnreadableSource: the program ends with a message that names the file and
// the fix, instead of waiting for ever.
func TestUnreadableSource(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil func(t *testing.T, p *pod)
		want  []string
	}{
		"secret with mode 0400": {
			func(t *testing.T, p *pod) { p.write(t, "prometheus.yml", 0o400); p.own(t, "prometheus.yml") },
			[]string{"cannot read the file prometheus.yml", "permission denied", "defaultMode: 0444", "fsGroup"},
		},
		"another file": {
			func(t *testing.T, p *pod) { p.write(t, "rules/a.yml", 0); p.own(t, "rules/a.yml") },
			[]string{"cannot read the file rules/a.yml", "mode 0000", "defaultMode: 0444"},
		},
		"the directory": {
			func(t *testing.T, p *pod) {
				if err := os.Chmod(p.config.Source, 0); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"cannot read the directory", "permission denied", "defaultMode: 0444"},
		},
		"no source": {
			func(t *testing.T, p *pod) {
				if err := os.RemoveAll(p.config.Source); err != nil {
					t.Fatal(err)
				}
			},
			[]string{"cannot serve Prometheus's configuration", "no such file or directory"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPod(t)
			tc.spoil(t, p)
			p.start(t)
			if err := p.cmd.Wait(); p.cmd.ProcessState.ExitCode() != 1 {
				t.Fatalf("%v\n%s", err, p.stderr.String())
			}
			lines := strings.Split(strings.TrimSpace(p.stderr.String()), "\n")
			for _, want := range tc.want {
				if message := lines[len(lines)-1]; !strings.Contains(message, want) {
					t.Errorf("the message does not have %q:\n%s", want, message)
				}
			}
		})
	}
}

// own gives a file to a user who is not the sidecar's.
func (p *pod) own(t *testing.T, name string) {
	t.Helper()
	if os.Getuid() != 0 {
		// The owner is the sidecar's own user: nothing may be read by it.
		if err := os.Chmod(filepath.Join(p.config.Source, name), 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSourceThatIsReadableLater: a source that can be read within some seconds
// is served.
func TestSourceThatIsReadableLater(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	p.write(t, "prometheus.yml", 0)
	p.start(t)
	time.Sleep(time.Second)
	p.write(t, "prometheus.yml", 0o644)
	testkit.Eventually(t, "it is ready", func() bool { return p.command("ready").Run() == nil })
}

// TestTermWhileSomethingHangs: SIGTERM ends the program although a file of the
// pod cannot be read to its end.
func TestTermWhileSomethingHangs(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	if err := errors.Join(syscall.Mkfifo(p.config.Token, 0o666), os.Chmod(p.config.Token, 0o666)); err != nil {
		t.Fatal(err)
	}
	p.start(t)
	testkit.Eventually(t, "it is ready", func() bool { return p.command("ready").Run() == nil })
	begun := time.Now()
	p.signal(t, syscall.SIGTERM)
	err := p.cmd.Wait()
	if took := time.Since(begun); err != nil || took > 10*time.Second {
		t.Errorf("ended with %v after %v", err, took)
	}
	if !strings.Contains(p.stderr.String(), "shutdown takes too long") {
		t.Errorf("nothing hung:\n%s", p.stderr.String())
	}
}

// TestLivenessProbe: a process that hangs has no new heartbeat, and the probe
// fails; once it goes on, the probe succeeds.
func TestLivenessProbe(t *testing.T) {
	t.Parallel()
	p := newPod(t)
	heartbeat := filepath.Join(filepath.Dir(p.config.Credentials), "heartbeat")
	p.start(t)
	testkit.Eventually(t, "there is a heartbeat", func() bool { _, err := os.Stat(heartbeat); return err == nil })
	if err := p.alive(); err != nil {
		t.Error(err)
	}
	p.signal(t, syscall.SIGSTOP)
	testkit.Eventually(t, "it is stopped", func() bool {
		return strings.Contains(testkit.ReadProcess(t, p.cmd.Process.Pid, "stat"), ") T ")
	})
	past := time.Now().Add(-3 * time.Minute) // so long does it hang
	if err := os.Chtimes(heartbeat, past, past); err != nil {
		t.Fatal(err)
	}
	var exit *exec.ExitError
	if err := p.alive(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("the probe of a process that hangs: %v", err)
	}
	p.signal(t, syscall.SIGCONT)
	testkit.Eventually(t, "the probe succeeds", func() bool { return p.alive() == nil })
}
