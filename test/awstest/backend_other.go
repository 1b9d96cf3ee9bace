//go:build !linux

package awstest

import "os/exec"

func dieWithParent(*exec.Cmd) {}

func (b *backend) run(started chan<- error) { b.startAndWait(started) }
