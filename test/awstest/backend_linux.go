package awstest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// dieWithParent makes the kernel end the process together with this one, even if a test run is killed.
func dieWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// run starts the process and waits for its end. The kernel watches the thread that
// started the process, so that thread must live as long as the process.
func (b *backend) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.startAndWait(started)
}
