package sidecar

import (
	"os"
	"strconv"
	"strings"
)

// What a render needs at its peak, measured: the process itself, and so many
// bytes for each byte of a configuration that has to be written anew (a quarter
// of that where the block can be put into the user's text).
const (
	idleBytes   = 20 << 20
	bytesByByte = 100
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

// maxConfig is the longest configuration, in bytes, that can be edited within
// a memory limit. Editing a longer one would end the sidecar again and again,
// and Prometheus would wait for its configuration for ever.
func maxConfig(limit int64) int {
	if limit <= 0 {
		return maxUnzipped
	}
	return int(min(maxUnzipped, max(0, limit-idleBytes)/bytesByByte))
}
