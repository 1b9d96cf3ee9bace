package sidecar

import (
	"os"
	"strconv"
	"strings"
)

// MemoryLimit returns the container's memory limit in bytes, from its cgroup
// (version 2, then 1); 0 if there is none.
func MemoryLimit() int64 {
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		// "max", and the huge number of version 1, mean that there is no limit.
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && limit < 1<<50 {
			return limit
		}
	}
	return 0
}
