// Package patchtest applies JSON patches in tests.
package patchtest

import (
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
)

// Apply returns a document after the API server has applied a JSON patch to it.
func Apply(t testing.TB, document, patch []byte) []byte {
	t.Helper()
	decoded, err := jsonpatch.DecodePatch(patch)
	if err != nil {
		t.Fatalf("%v: %s", err, patch)
	}
	changed, err := decoded.Apply(document)
	if err != nil {
		t.Fatalf("the patch does not apply: %v: %s", err, patch)
	}
	return changed
}
