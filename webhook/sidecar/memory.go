package sidecar

import (
	"os"
	"strconv"
	"strings"
)

// MemoryLimit is what this container may use, in bytes, as its cgroup says
// (version 2, then 1); 0 where it does not.
func MemoryLimit() int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// "max", and version 1's huge number, mean that there is none.
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit < 1<<50 {
			return limit
		}
	}
	return 0
}
