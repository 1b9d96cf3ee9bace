// Package testkit holds small helpers for tests of many packages: golden files, other files and
// JSON, waiting for a condition, programs, HTTP, addresses to listen on, and volumes as the kubelet
// fills them.
//
// In a package with golden files, tests have the flag -update:
//
//	go test ./policy -update
package testkit

import (
	"context"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// Must ends the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Run runs a function beside the test, until the test ends and its context with it. The test
// fails if the function returns an error. The name is for that message.
func Run(t testing.TB, name string, run func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
}

// CloseAfter closes c, which was opened with err, when the test ends. It fails the test if err is not nil.
func CloseAfter(t testing.TB, c io.Closer, err error) {
	t.Helper()
	Must(t, err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Exec runs a program to its end, and returns its standard output. If the program fails, the
// test fails with all that it wrote.
func Exec(t testing.TB, program string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), program, args...)
	var errs strings.Builder
	command.Stderr = &errs
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s%s", command, err, out, errs.String())
	}
	return string(out)
}
