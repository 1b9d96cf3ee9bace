package cluster

import "syscall"

// procAttr puts the process into a group of its own, so that an interrupt at
// the terminal is ours to handle, and ends it when this process dies without
// having closed the cluster.
func procAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
