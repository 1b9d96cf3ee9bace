package mirror_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
)

// The test program starts itself as a child process. With this variable it mirrors one directory,
// and prints the memory that it took.
const (
	childVariable = "MIRROR_TEST_CHILD"
	// limitVariable is the longest file that the child can write, in bytes.
	limitVariable = "MIRROR_TEST_FILE_LIMIT"
)

func TestMain(m *testing.M) {
	directories, child := os.LookupEnv(childVariable)
	if !child {
		os.Exit(m.Run())
	}
	if err := mirrorInChild(directories, os.Getenv(limitVariable)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func mirrorInChild(directories, limit string) error {
	if limit != "" {
		bytes, err := strconv.ParseUint(limit, 10, 64)
		if err != nil {
			return err
		}
		signal.Ignore(syscall.SIGXFSZ)
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: bytes, Max: bytes}); err != nil {
			return err
		}
	}
	source, target, _ := strings.Cut(directories, ":")
	edit := func(content []byte) ([]byte, error) { return append(content, "# edited\n"...), nil }
	if _, err := mirror.Mirror(source, target, "prometheus.yml", edit); err != nil {
		return err
	}
	status, err := os.ReadFile("/proc/self/status")
	_, peak, found := bytes.Cut(status, []byte("VmHWM:"))
	if err != nil || !found {
		return errors.Join(err, errors.New("no VmHWM in /proc/self/status"))
	}
	_, err = os.Stdout.Write(bytes.Fields(peak)[0])
	return err
}

// inChild mirrors in a child process and returns its maximum memory in KiB.
func inChild(t *testing.T, source, target, limit string) (kib int, err error) {
	t.Helper()
	self, err := os.Executable()
	testkit.Must(t, err)
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append(os.Environ(), childVariable+"="+source+":"+target, limitVariable+"="+limit)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return 0, fmt.Errorf("%w: %s", err, &stderr)
	}
	return strconv.Atoi(string(out))
}

// TestManyLargeFiles mirrors 100 files of 1 MB each, and then one that has changed, in little more
// memory than one small file needs.
func TestManyLargeFiles(t *testing.T) {
	small, source, target := of("prometheus.yml", "global: {}\n").in(t), t.TempDir(), t.TempDir()
	least, err := inChild(t, small, t.TempDir(), "")
	testkit.Must(t, err)
	large := bytes.Repeat([]byte("- alert: Large\n"), 1_000_000/15)
	testkit.Must(t, os.WriteFile(filepath.Join(source, "prometheus.yml"), []byte("global: {}\n"), 0o644))
	for i := range 100 {
		testkit.Must(t, os.WriteFile(filepath.Join(source, fmt.Sprintf("rules-%d.yml", i)), large, 0o644))
	}
	for _, change := range []string{"from nothing", "one file changed", "nothing changed"} {
		if change == "one file changed" {
			testkit.Must(t, os.WriteFile(filepath.Join(source, "rules-7.yml"), append(large, "# changed"...), 0o644))
		}
		kib, err := inChild(t, source, target, "")
		testkit.Must(t, err)
		t.Logf("%s: %d KiB; one small file: %d KiB", change, kib, least)
		// All files together are 97,600 KiB. The race detector takes a few times as much as Go alone.
		if kib > least+16<<10 {
			t.Errorf("%s: took %d KiB, one small file %d", change, kib, least)
		}
	}
	got, want := read(t, target), read(t, source)
	if len(got) != 101 || got["rules-7.yml"] != want["rules-7.yml"] || got["rules-8.yml"] != want["rules-8.yml"] {
		t.Errorf("%d files", len(got))
	}
}

// TestFullVolume: the second file of a new set cannot be written to its end.
func TestFullVolume(t *testing.T) {
	target := t.TempDir()
	write(t, target, of("a", "1", "prometheus.yml", "1"), true)
	before, was := names(t, target), read(t, target)
	for _, f := range []files{
		of("a", "2", "b", strings.Repeat("x", 5000)),
		of("a", "2", "prometheus.yml", strings.Repeat("x", 5000)),
		of("a", strings.Repeat("x", 5000), "d/prometheus.yml", "2"),
	} {
		if _, err := inChild(t, f.in(t), target, "4096"); err == nil || !strings.Contains(err.Error(), syscall.EFBIG.Error()) {
			t.Errorf("a file beyond the limit: %v", err)
		}
		if now := names(t, target); strings.Join(now, "|") != strings.Join(before, "|") {
			t.Errorf("entries %v, want %v", now, before)
		}
		if got := read(t, target); len(got) != len(was) || got["a"] != was["a"] || got["prometheus.yml"] != was["prometheus.yml"] {
			t.Errorf("files %v, want %v", got, was)
		}
	}
	if _, err := inChild(t, of("a", "2").in(t), target, "4096"); err != nil || read(t, target)["a"].Content != "2" {
		t.Errorf("a file within the limit: %v", err)
	}
}
