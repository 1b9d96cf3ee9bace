package cluster

import "syscall"

// procAttr puts the process into its own process group, so that this program can handle an interrupt at the
// terminal. The process also ends if this program dies without closing the cluster.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
