package patchtest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/patchtest"
)

// failing keeps the message with which a test would end.
type failing struct {
	testing.TB
	message string
}

func (*failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.message = fmt.Sprintf(format, args...)
	panic(f)
}

func TestApply(t *testing.T) {
	const patch = `[{"op":"test","path":"/a","value":1},{"op":"replace","path":"/a","value":2}]`
	if got := patchtest.Apply(t, []byte(`{"a":1}`), []byte(patch)); string(got) != `{"a":2}` {
		t.Errorf("got %s", got)
	}
	for document, bad := range map[string]string{`{"a":3}`: patch, `{"a":1}`: `{"op":"replace"}`} {
		f := &failing{TB: t}
		func() {
			defer func() { _ = recover() }()
			patchtest.Apply(f, []byte(document), []byte(bad))
		}()
		if !strings.Contains(f.message, bad) {
			t.Errorf("%s with %s: failed with %q", document, bad, f.message)
		}
	}
}
