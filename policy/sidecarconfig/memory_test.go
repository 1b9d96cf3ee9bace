package sidecarconfig

import (
	"strings"
	"testing"
)

func TestBudget(t *testing.T) {
	if got := BudgetOf(0); got != (Budget{}) {
		t.Errorf("no limit: %+v", got)
	}
	for limit := int64(1 << 20); limit < 4<<30; limit += 7 << 20 {
		b := BudgetOf(limit)
		if b.Edit < 1 || b.Bodies < 1 || b.Edit > 1 && b.Edit+2*b.Bodies > limit*4/5 {
			t.Fatalf("a limit of %d MiB: %+v", limit>>20, b)
		}
	}
	for mib, want := range map[int64]Budget{
		64: {6 << 20, 25}, 128: {12 << 20, 64}, 256: {24 << 20, 142}, 512: {48 << 20, 299},
	} {
		if got := BudgetOf(mib << 20); got.Bodies != want.Bodies || got.Edit>>20 != want.Edit {
			t.Errorf("%d MiB: %d and %d MiB", mib, got.Bodies>>20, got.Edit>>20)
		}
	}
}

// TestLimitFor: the limit that is named is enough, and the one before it is not.
func TestLimitFor(t *testing.T) {
	for edit := int64(1 << 20); edit < 2<<30; edit += 13 << 20 {
		limit := LimitFor(edit)
		if BudgetOf(limit).Edit < edit || limit > limitStep && BudgetOf(limit-limitStep).Edit >= edit {
			t.Fatalf("%d MiB for an edit of %d MiB", limit>>20, edit>>20)
		}
	}
}

func TestTooLarge(t *testing.T) {
	text := TooLarge(4e6, 112<<20-5, 128<<20).Error()
	for _, want := range []string{"(4.0 MB)", "about 112 MiB", "has 64 MiB", "sidecar's 128 MiB", "sidecar.resources.limits.memory to 256Mi"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
}
