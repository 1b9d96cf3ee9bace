// Package testkit holds small helpers for tests of many packages: golden
// files, waiting for a condition, addresses to listen on, and volumes as the kubelet
// fills them.
//
// In a package with golden files, tests have the flag -update:
//
//	go test ./policy -update
package testkit

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
)

// update is a flag only in test programs. Other programs import this package too,
// through test/env.
var update = new(bool)

func init() {
	if testing.Testing() {
		flag.BoolVar(update, "update", false, "write the golden files")
	}
}

// Updating reports whether the test runs with -update, which writes golden files
// instead of comparing with them.
func Updating() bool { return *update }

// Golden compares got with a file. The path is relative to the package's
// folder. With -update it writes the file.
func Golden[T string | []byte](t testing.TB, path string, got T) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update to write it, and read the difference", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); run the test with -update if the new text is right:\n%s", path, diff)
	}
}

// Equal fails the test with the difference if got is not want, but does not end it. what names the
// value.
func Equal[T any](t testing.TB, what string, want, got T, options ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(want, got, options...); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Timeout is how long [Eventually] waits. It is far more than any condition
// needs on a quiet machine, so that tests do not fail on a busy one.
const Timeout = 2 * time.Minute

// pause is the time between two checks of a condition.
const pause = 50 * time.Millisecond

// Eventually waits until the condition holds, and fails the test after [Timeout].
// what names the condition.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	Within(t, Timeout, what, condition)
}

// Within waits until the condition holds, and fails the test after the timeout.
func Within(t testing.TB, timeout time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(pause) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", timeout, what)
		}
	}
}

// EventuallyEmpty waits until complaint returns "". It fails the test with the
// last result after [Timeout].
func EventuallyEmpty(t testing.TB, complaint func() string) {
	t.Helper()
	text := ""
	for deadline := time.Now().Add(Timeout); ; time.Sleep(pause) {
		if text = complaint(); text == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s:\n%s", Timeout, text)
		}
	}
}

// Run runs something beside the test and stops it when the test ends. The test fails if
// it ends with an error; name names it then.
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

// CloseAfter closes something when the test ends. The test fails if that fails.
func CloseAfter(t testing.TB, c io.Closer) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TempFile writes a file that is gone after the test, and returns its path.
func TempFile(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	WriteFile(t, path, text)
	return path
}

// WriteFile writes a file, which only the test's own user can read.
func WriteFile(t testing.TB, path, text string) {
	t.Helper()
	Must(t, os.WriteFile(path, []byte(text), 0o600))
}

// ReadFile returns the text of a file.
func ReadFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	Must(t, err)
	return string(text)
}

// ReadBody returns the body of an answer, and closes it.
func ReadBody(t testing.TB, answer *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(answer.Body)
	Must(t, errors.Join(err, answer.Body.Close()))
	return string(text)
}

// Request returns the body of an HTTP answer. An answer that is not a success is an error.
func Request(ctx context.Context, method, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }() // read to its end
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, strings.TrimSpace(string(text)))
	}
	return string(text), err
}

// DecodeJSON decodes JSON. The test fails if the text is no JSON of that type.
func DecodeJSON[T ~string | ~[]byte](t testing.TB, text T, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
}

// Exec runs a program to its end, and returns what it writes to standard output. The test fails if the program does.
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

// Must fails the test if there is an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ApplyPatch returns a document after the API server has applied a JSON patch to it.
func ApplyPatch(t testing.TB, document, patch []byte) []byte {
	t.Helper()
	decoded, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatalf("%v: %s", err, patch)
	}
	changed, err := decoded.Apply(document)
	if err != nil {
		t.Fatalf("the patch does not apply: %v: %s", err, patch)
	}
	return changed
}

// Ports come from a range that the kernel does not use for outgoing connections
// (net.ipv4.ip_local_port_range begins at 32768, and Kubernetes's node ports at 30000),
// so that no connection takes a port between the check and its use.
const firstPort, lastPort = 12000, 29999

// UnusedAddr returns an address of a host, as host and port, on which no program
// listens. It is for programs; tests have [FreeAddr] and [FreeAddrOn].
func UnusedAddr(host string) (string, error) {
	var last error
	for range 100 {
		port := strconv.Itoa(firstPort + rand.IntN(lastPort-firstPort+1))
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			last = err // in use, or the host has no such address
			continue
		}
		return l.Addr().String(), l.Close()
	}
	return "", last
}

// UnusedPort returns a loopback port on which no program listens. It is for
// programs; tests have [FreePort].
func UnusedPort() (int, error) {
	addr, err := UnusedAddr("127.0.0.1")
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// FreeAddr returns a loopback address, as host and port, on which no program listens.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return FreeAddrOn(t, "127.0.0.1")
}

// FreeAddrOn returns an address of a host, as host and port, on which no program
// listens.
func FreeAddrOn(t testing.TB, host string) string {
	t.Helper()
	addr, err := UnusedAddr(host)
	Must(t, err)
	return addr
}

// FreePort returns a loopback port on which no program listens.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := UnusedPort()
	Must(t, err)
	return port
}
