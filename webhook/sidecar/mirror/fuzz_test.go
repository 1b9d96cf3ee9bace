package mirror_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
)

// FuzzWrite: a set of files is there afterwards as it was given, or the one
// before it still is; and nothing outside of the directory is touched. Each line
// of the text is a file: its mode, path and content.
func FuzzWrite(f *testing.F) {
	for _, lines := range []string{
		"", "644 prometheus.yml a", "600 a x\n440 b/c y\n400 b/d/e z", "644 a x\n644 a/b y", "644 ../../outside x", "644 /etc/x y",
		"644 ..data x",
		"644 ..data_tmp/x y", "000 a b", "777 a/../b c", "644 mounted/x y", "644 mounted x", "644 . x", "644 a// b",
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
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(root) }()
		dir := filepath.Join(root, "volume")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		var before mirror.Files
		for _, lines := range []string{first, second} {
			files := filesOf(lines)
			changed, err := mirror.Write(dir, files, mirror.MountPoint{Name: "mounted"})
			if err != nil {
				files = before
			}
			if files != nil {
				got, readErr := mirror.Read(dir)
				if readErr != nil {
					t.Fatalf("%v after %v", readErr, err)
				}
				if !maps.EqualFunc(
					files,
					got,
					func(a, b mirror.File) bool { return a.Mode == b.Mode && string(a.Content) == string(b.Content) },
				) {
					t.Errorf("want %v, got %v; write: %v", files, got, err)
				}
			}
			if again, repeatErr := mirror.Write(dir, files, mirror.MountPoint{Name: "mounted"}); err == nil && (again || repeatErr != nil) {
				t.Errorf("the same again: changed %v, %v; the first time %v", again, repeatErr, changed)
			}
			before = files
		}
		entries, err := os.ReadDir(root)
		if err != nil || len(entries) != 1 {
			t.Errorf("beside the volume: %v, %v", entries, err)
		}
	})
}

// filesOf reads a line per file.
func filesOf(lines string) mirror.Files {
	files := mirror.Files{}
	for line := range strings.Lines(lines) {
		mode, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		path, content, _ := strings.Cut(rest, " ")
		var bits fs.FileMode
		for _, c := range []byte(mode) {
			bits = bits<<3 | fs.FileMode(c&7)
		}
		files[path] = mirror.File{Mode: bits&0o777 | 0o400, Content: []byte(content)}
	}
	return files
}
