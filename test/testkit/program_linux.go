package testkit

import (
	"os/exec"
	"syscall"
	"testing"
)

// StartProgram starts a program and kills it when the test ends, or when this process
// does. If the test fails, it logs what the program has written.
func StartProgram(t testing.TB, cmd *exec.Cmd) (output *Buffer) {
	t.Helper()
	output = &Buffer{}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()         // it was killed
		if t.Failed() {
			t.Logf("%s:\n%s", cmd.Path, output)
		}
	})
	return output
}
