package sidecarconfig

import "fmt"

// Budget divides the memory of a sidecar's container, in bytes.
type Budget struct {
	// Bodies is the limit for bodies of writes in flight in the relay; 0 means no limit.
	Bodies int64
	// Edit is the limit for an edit of the configuration; 0 means no limit.
	Edit int64
}

const (
	// processBytes is the memory of the process itself, as measured.
	processBytes = 14 << 20
	// limitStep is the step between the limits that [LimitFor] returns.
	limitStep = 64 << 20
)

// BudgetOf divides the memory limit of a container; 0 means that it has none. Go's heap gets
// four fifths. The rest is for the memory volumes and for garbage that is not collected
// yet. The relay needs about twice the memory of the bodies that it holds.
func BudgetOf(limit int64) Budget {
	if limit <= 0 {
		return Budget{}
	}
	bodies := limit / 32 * 3 // 24 MiB with the default limit of 256 MiB
	return Budget{Bodies: bodies, Edit: max(1, HeapOf(limit)-processBytes-2*bodies)}
}

// HeapOf returns the part of a container's memory for Go's heap.
func HeapOf(limit int64) int64 { return limit / 5 * 4 }

// LimitFor returns the container limit that leaves that many bytes for an edit.
func LimitFor(edit int64) int64 {
	limit := int64(limitStep)
	for BudgetOf(limit).Edit < edit {
		limit += limitStep
	}
	return limit
}

// TooLarge returns an error with the fix: an edit of a configuration of that size needs more memory
// than a container with that limit has.
func TooLarge(config, need, limit int64) error {
	return fmt.Errorf("the configuration (%.1f MB) needs about %d MiB of memory to be edited, and has %d MiB of the "+
		"sidecar's %d MiB: set sidecar.resources.limits.memory to %dMi or more in the policy, and create the pod again",
		float64(config)/1e6, mebibytes(need), BudgetOf(limit).Edit>>20, limit>>20, LimitFor(need)>>20)
}

// mebibytes returns the number of MiB, rounded up.
func mebibytes(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }
