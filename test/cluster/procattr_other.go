//go:build !linux

package cluster

import "syscall"

// procAttr puts the process into its own process group, so that this program can handle an interrupt at the
// terminal.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
