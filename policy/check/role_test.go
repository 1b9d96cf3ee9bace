package check

import (
	"slices"
	"testing"
)

func TestRoleTags(t *testing.T) {
	judged(t, RoleTags(second, nil), Pass, second.String())
	judged(t, RoleTags(second, []string{"team"}), Warn, "other systems may give it rights because of them: team")
	f := RoleTags(second, []string{"a", "b"})
	judged(t, f, Warn, ": a, b")
	if want := []string{"aws", "iam", "untag-role", "--role-name", "second", "--tag-keys", "a", "b"}; !slices.Equal(f.Fix.Commands[0], want) {
		t.Errorf("got %q, want %q", f.Fix.Commands[0], want)
	}
}
