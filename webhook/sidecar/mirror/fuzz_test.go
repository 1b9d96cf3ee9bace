package mirror_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
)

// FuzzMirror: after Mirror the directory has exactly the given files, and nothing outside of it has
// changed. Each line of the text is a file: its mode, path and content. Files that no directory can
// hold are left out.
func FuzzMirror(f *testing.F) {
	for _, lines := range []string{
		"", "644 prometheus.yml a", "600 a x\n440 b/c y\n400 b/d/e z", "644 a x\n644 a/b y", "644 a/b x\n644 a y", "644 ..data x",
		"644 ..data_tmp/x y", "000 a b", "644 mounted/x y", "644 mounted x", "644 edited x\n644 a y", "644 edited/x y",
		"644 " + strings.Repeat("d/", 40) + "f x",
	} {
		f.Add(lines, "644 prometheus.yml before")
		f.Add("644 a before\n644 b/c before", lines)
	}
	// Volumes are in memory, and a disk would make this slow.
	memory := "/dev/shm"
	if _, err := os.Stat(memory); err != nil {
		memory = ""
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		root, err := os.MkdirTemp(memory, "mirror") //nolint:usetesting // t.TempDir is on disk, which is slow
		testkit.Must(t, err)
		defer func() { _ = os.RemoveAll(root) }()
		target := filepath.Join(root, "volume")
		testkit.Must(t, os.Mkdir(target, 0o755))
		do := func(source string) (bool, error) {
			return mirror.Mirror(source, target, "edited", func(content []byte) ([]byte, error) {
				return append([]byte("# "), content...), nil
			}, mirror.MountPoint{Name: "mounted"})
		}
		var want files
		for i, lines := range []string{first, second} {
			source := filepath.Join(root, []string{"first", "second"}[i])
			given, tooDeep := filesOf(t, source, lines)
			changed, err := do(source)
			if (err != nil) != tooDeep {
				t.Fatalf("%q: %v", lines, err)
			}
			if err != nil {
				given = want // what was there stays
			} else if again, err := do(source); again || err != nil {
				t.Errorf("the same again: changed %v, %v; the first time %v", again, err, changed)
			}
			if want = given; want != nil && !maps.Equal(want, read(t, filepath.Join(target, "..data"))) {
				t.Errorf("want %v, got %v", want, read(t, filepath.Join(target, "..data")))
			}
			testkit.Must(t, os.RemoveAll(source))
		}
		entries, err := os.ReadDir(root)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the volume: %v, %v", entries, err)
		}
	})
}

// filesOf creates a directory with one file per line, and returns the files that Mirror must
// create.
func filesOf(t *testing.T, dir, lines string) (f files, tooDeep bool) {
	t.Helper()
	testkit.Must(t, os.Mkdir(dir, 0o755))
	f = files{}
	for line := range strings.Lines(lines) {
		mode, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		path, content, _ := strings.Cut(rest, " ")
		var bits fs.FileMode
		for _, c := range []byte(mode) {
			bits = bits<<3 | fs.FileMode(c&7)
		}
		bits = bits&0o777 | 0o400
		if first, _, _ := strings.Cut(path, "/"); !fs.ValidPath(path) || path == "." || first == "..data" {
			continue
		}
		name := filepath.Join(dir, path)
		// For example a file in the place of a directory, or a name that is too long.
		if os.MkdirAll(filepath.Dir(name), 0o755) != nil || os.WriteFile(name, []byte(content), 0o600) != nil || os.Chmod(name, bits) != nil {
			continue
		}
		if path == "edited" {
			content = "# " + content
		}
		if !strings.HasPrefix(path, "..") {
			f[path] = file{bits, content}
		}
	}
	return f, deep(t, dir, 0)
}

// deep reports whether directories are nested deeper than Mirror goes.
func deep(t *testing.T, dir string, depth int) bool {
	t.Helper()
	if depth > 32 {
		return true
	}
	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
	for _, e := range entries {
		if e.IsDir() && (depth > 0 || !strings.HasPrefix(e.Name(), "..")) && deep(t, filepath.Join(dir, e.Name()), depth+1) {
			return true
		}
	}
	return false
}
