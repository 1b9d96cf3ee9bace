package cli

import (
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
)

// limitMemory sets the garbage collector's limit to 80 % of the container's memory
// limit. The memory of requests has its own bound, see webhook.Intake. An explicit
// GOMEMLIMIT wins.
func limitMemory(logger *slog.Logger) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	limit := containerLimit(os.DirFS("/sys/fs/cgroup"))
	if limit == 0 {
		return
	}
	soft := limit / 10 * 8
	debug.SetMemoryLimit(soft)
	logger.Debug("memory limit", "container", limit, "soft", soft)
}

// containerLimit returns the memory limit of the process's cgroup in bytes, as
// version 2 and then version 1 have it; 0: none.
func containerLimit(cgroup fs.FS) int64 {
	for _, name := range []string{"memory.max", "memory/memory.limit_in_bytes"} {
		text, err := fs.ReadFile(cgroup, name)
		if err != nil {
			continue
		}
		// "max", and version 1's huge number, mean that there is none.
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && 0 < limit && limit < 1<<50 {
			return limit
		}
	}
	return 0
}
