package testkit

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// update is a flag only in test programs. Other programs import this package too,
// through test/env.
var update = new(bool)

func init() {
	if testing.Testing() {
		flag.BoolVar(update, "update", false, "write the golden files")
	}
}

// Updating reports whether the test runs with -update: golden files are then written, not
// compared.
func Updating() bool { return *update }

// Golden compares the text with a golden file. The path is relative to the package's folder.
// With -update it writes the file.
func Golden[T string | []byte](t testing.TB, path string, got T) {
	t.Helper()
	if *update {
		Must(t, os.MkdirAll(filepath.Dir(path), 0o750))
		WriteFile(t, path, string(got))
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; run the test with -update to write it, and read the difference", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); run the test with -update if the new text is right:\n%s", path, diff)
	}
}

// Equal fails the test with the difference if got is not want, but does not end it. what names the
// value.
func Equal[T any](t testing.TB, what string, want, got T, options ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(want, got, options...); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
