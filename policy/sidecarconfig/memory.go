package sidecarconfig

import "fmt"

// Budget is how a sidecar shares its container's memory, in bytes.
type Budget struct {
	// Bodies is what the relay may hold of writes in flight; 0: as much as it likes.
	Bodies int64
	// Edit is what an edit of the configuration may use; 0: as much as it likes.
	Edit int64
}

const (
	// processBytes is what the process needs itself, measured.
	processBytes = 14 << 20
	// limitStep is that of the limits that [LimitFor] names.
	limitStep = 64 << 20
)

// BudgetOf shares the memory that a container may use; 0: it has no limit. Go's heap gets
// four fifths of it: the rest is for the memory volumes and for what the collector has not
// freed yet. The relay needs about twice what it holds of bodies.
func BudgetOf(limit int64) Budget {
	if limit <= 0 {
		return Budget{}
	}
	bodies := limit / 32 * 3 // of the default of 256 MiB: 24 MiB
	return Budget{Bodies: bodies, Edit: max(1, HeapOf(limit)-processBytes-2*bodies)}
}

// HeapOf returns how much of a container's memory is for Go's heap.
func HeapOf(limit int64) int64 { return limit / 5 * 4 }

// LimitFor returns the container's limit that leaves so many bytes for an edit.
func LimitFor(edit int64) int64 {
	limit := int64(limitStep)
	for BudgetOf(limit).Edit < edit {
		limit += limitStep
	}
	return limit
}

// TooLarge says that a configuration of so many bytes needs so much memory to be edited,
// which a container with that limit does not have, and what to do.
func TooLarge(config, need, limit int64) error {
	return fmt.Errorf("the configuration (%.1f MB) needs about %d MiB of memory to be edited, and has %d MiB of the sidecar's %d MiB: "+
		"set sidecar.resources.limits.memory to %dMi or more in the policy, and create the pod again",
		float64(config)/1e6, mebibytes(need), BudgetOf(limit).Edit>>20, limit>>20, LimitFor(need)>>20)
}

// mebibytes rounds up.
func mebibytes(bytes int64) int64 { return (bytes + 1<<20 - 1) >> 20 }
