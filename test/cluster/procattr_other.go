//go:build !linux

package cluster

import "syscall"

// procAttr puts the process into a group of its own, so that an interrupt at
// the terminal is ours to handle.
func procAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
