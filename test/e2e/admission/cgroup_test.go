package admission_test

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// cgroup is the directory of a memory cgroup, of version 1 or 2; empty if none can be created here.
type cgroup string

// newCgroup creates a cgroup with a limit, if the test has the permission.
func newCgroup(t *testing.T, limit int64) cgroup {
	t.Helper()
	for parent, file := range map[string]string{"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"} {
		dir, err := os.MkdirTemp(parent, "ampbridge-admission-test-") //nolint:usetesting // only here it makes a cgroup
		if err != nil {
			continue
		}
		if _, err := os.Stat(dir + "/" + file); err == nil && os.WriteFile(dir+"/"+file, fmt.Append(nil, limit), 0) == nil {
			return cgroup(dir)
		}
		_ = os.Remove(dir)
	}
	t.Log("no cgroup can be created here: only the size of the process is measured")
	return ""
}

func (c cgroup) add(t *testing.T, pid int) {
	t.Helper()
	if c != "" {
		testkit.Must(t, os.WriteFile(string(c)+"/cgroup.procs", fmt.Append(nil, pid), 0))
	}
}

// used returns the peak memory of the cgroup, in bytes.
func (c cgroup) used(t *testing.T) (bytes int64, there bool) {
	t.Helper()
	for _, name := range []string{"memory.max_usage_in_bytes", "memory.peak"} {
		text, err := os.ReadFile(string(c) + "/" + name)
		if c == "" || errors.Is(err, os.ErrNotExist) {
			continue
		}
		testkit.Must(t, err)
		bytes, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		testkit.Must(t, err)
		return bytes, bytes > 0
	}
	return 0, false
}

func (c cgroup) remove(t *testing.T) {
	t.Helper()
	if c == "" {
		return
	}
	testkit.Eventually(t, "the cgroup is empty", func() bool { return os.Remove(string(c)) == nil })
}
