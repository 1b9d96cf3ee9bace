package awstest

import (
	"os/exec"
	"runtime"
	"syscall"
)

// dieWithParent makes the kernel end the process with this one, even where a test run is killed.
func dieWithParent(command *exec.Cmd) {
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// run starts the process and waits for its end. The kernel looks at the thread that
// started the process, so that thread must live as long as it does.
func (b *backend) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.startAndWait(started)
}
