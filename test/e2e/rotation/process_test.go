package rotation_test

import (
	"bytes"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ampbridge/ampbridge/test/metricstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// The real command with its flags keeps its certificate and its memory budget.
func TestProcess(t *testing.T) {
	f := newRegistered(t)
	kubeconfig, err := f.KubeconfigFor(t.Context(), home, "webhook")
	testkit.Must(t, err)
	program := tools.Build(t, "github.com/ampbridge/ampbridge/cmd/ampbridge")
	r := &replica{health: testkit.FreeAddr(t)}
	metricsAddr := testkit.FreeAddr(t)
	cmd := exec.Command(program, "webhook", "--policy", f.policyFile, "--image", image, "--system-namespace", home, "--kubeconfig", kubeconfig,
		"--cert-secret", secret, "--service", service, "--webhook-configuration", registration.DefaultName,
		"--addr", testkit.FreeAddrOn(t, f.address), "--health-addr", r.health, "--metrics-addr", metricsAddr, "--drain-delay", "0s")
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		testkit.Must(t, cmd.Process.Signal(syscall.SIGTERM))
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, &log)
		}
		if strings.Contains(log.String(), "PRIVATE KEY") {
			t.Error("the log has a key")
		}
	})
	testkit.Eventually(t, "ready", func() bool { return r.ready() == nil })
	if !f.stable(t, secret, registration.DefaultName) {
		t.Errorf("ready, but not stable")
	}
	metrics, err := testkit.Get(t.Context(), "http://"+metricsAddr+"/metrics")
	testkit.Must(t, err)
	for name, want := range map[string]func(float64) bool{
		"ampbridge_certificate_expiry_timestamp_seconds":  func(v float64) bool { return v > 1.7e9 },
		"ampbridge_certificate_rotations_total":           func(v float64) bool { return v == 0 },
		"ampbridge_certificate_errors_total":              func(v float64) bool { return v == 0 },
		"ampbridge_certificate_trusted":                   func(v float64) bool { return v == 1 },
		`ampbridge_certificate_state{state="stable"}`:     func(v float64) bool { return v == 1 },
		`ampbridge_certificate_state{state="announcing"}`: func(v float64) bool { return v == 0 },
		`ampbridge_certificate_state{state="retiring"}`:   func(v float64) bool { return v == 0 },
		`ampbridge_certificate_state{state="none"}`:       func(v float64) bool { return v == 0 },
	} {
		if got, there := metricstest.Value(metrics, name); !there || !want(got) {
			t.Errorf("%s: got %v (there: %v)", name, got, there)
		}
	}
	// The rest of the budget of 40 MB is for pages of the program's file. The kernel decides how many of them
	// are in memory.
	own := testkit.ProcessMemory(t, cmd.Process.Pid, "RssAnon")
	t.Logf("own memory: %d kB", own>>10)
	if own > 14<<20 {
		t.Errorf("the process's own memory: got %d bytes, want at most 14 MiB", own)
	}
}
