package testkit

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// ReadProcess returns the text of one of a process's files in /proc, such as status.
func ReadProcess(t testing.TB, pid int, file string) string {
	t.Helper()
	return ReadFile(t, fmt.Sprintf("/proc/%d/%s", pid, file))
}

// ProcessMemory returns one of the sizes in a process's status, such as VmHWM, in bytes. The test fails if
// the process has ended.
func ProcessMemory(t testing.TB, pid int, size string) int64 {
	t.Helper()
	status := ReadProcess(t, pid, "status")
	_, rest, found := strings.Cut(status, "\n"+size+":")
	if !found {
		t.Fatalf("no %s: process %d has ended:\n%s", size, pid, status)
	}
	kilobytes, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	Must(t, err)
	return kilobytes << 10
}
