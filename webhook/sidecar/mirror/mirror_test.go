package mirror_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
)

func files(pairs ...string) mirror.Files {
	f := mirror.Files{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = mirror.File{Mode: 0o644, Content: []byte(pairs[i+1])}
	}
	return f
}

func write(t *testing.T, dir string, f mirror.Files, wantChanged bool) {
	t.Helper()
	changed, err := mirror.Write(dir, f)
	if err != nil {
		t.Fatal(err)
	}
	if changed != wantChanged {
		t.Errorf("changed = %v, want %v", changed, wantChanged)
	}
	got, err := mirror.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Errorf("read back (-want +got):\n%s", diff)
	}
}

// names are the entries of dir, with version directories as "..<time>".
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, "..20") {
			name = "..<time>"
		}
		if target, err := os.Readlink(filepath.Join(dir, name)); err == nil && name != "..data" {
			name += " -> " + target
		}
		list = append(list, name)
	}
	return list
}

func TestWriteLaysOutLikeTheKubelet(t *testing.T) {
	dir := t.TempDir()
	f := files("prometheus.yml", "a: 1\n", "rules/a/b.yml", "\x00\xff", "rules/c.yml", "")
	f["secret"] = mirror.File{Mode: 0o440, Content: []byte("s")}
	write(t, dir, f, true)
	want := []string{"..<time>", "..data", "prometheus.yml -> ..data/prometheus.yml", "rules -> ..data/rules", "secret -> ..data/secret"}
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("layout (-want +got):\n%s", diff)
	}
	for name, mode := range map[string]fs.FileMode{"secret": 0o440, "prometheus.yml": 0o644, "rules": 0o755} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
}

func TestWriteSwapsOnlyChanges(t *testing.T) {
	dir := t.TempDir()
	first := files("a", "1", "b", "2", "d/e", "3")
	write(t, dir, first, true)
	before, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, dir, maps.Clone(first), false)
	if after, err := os.Readlink(filepath.Join(dir, "..data")); err != nil || after != before {
		t.Errorf("..data moved from %s to %s without a change, %v", before, after, err)
	}
	mode := maps.Clone(first)
	mode["a"] = mirror.File{Mode: 0o600, Content: []byte("1")}
	write(t, dir, mode, true)
	write(t, dir, files("a", "1", "d", "a file now"), true)
	if want := []string{"..<time>", "..data", "a -> ..data/a", "d -> ..data/d"}; !slices.Equal(names(t, dir), want) {
		t.Errorf("entries %v, want %v", names(t, dir), want)
	}
	write(t, dir, mirror.Files{}, true)
}

// TestWriteAfterACrash leaves behind what a crash at each step would.
func TestWriteAfterACrash(t *testing.T) {
	for name, crash := range map[string]func(dir string) error{
		"while filling": func(dir string) error {
			return os.MkdirAll(filepath.Join(dir, "..2026_01_02_03_04_05.1", "half"), 0o700)
		},
		"before the rename": func(dir string) error { return os.Symlink("..2026_01_02_03_04_05.1", filepath.Join(dir, "..data_tmp")) },
		"before the links":  func(dir string) error { return os.Remove(filepath.Join(dir, "a")) },
		"..data leads nowhere": func(dir string) error {
			target, err := os.Readlink(filepath.Join(dir, "..data"))
			if err != nil {
				return err
			}
			return os.RemoveAll(filepath.Join(dir, target))
		},
		"a stale link":           func(dir string) error { return os.Symlink("..data/gone", filepath.Join(dir, "gone")) },
		"a file in a link's way": func(dir string) error { return replace(filepath.Join(dir, "a")) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir, files("a", "1"), true)
			if err := crash(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := mirror.Write(dir, files("a", "1")); err != nil {
				t.Fatal(err)
			}
			write(t, dir, files("a", "2"), true)
			if want := []string{"..<time>", "..data", "a -> ..data/a"}; !slices.Equal(names(t, dir), want) {
				t.Errorf("entries %v, want %v", names(t, dir), want)
			}
			if content, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || string(content) != "2" {
				t.Errorf("a is %q, %v", content, err)
			}
		})
	}
}

func replace(name string) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.WriteFile(name, []byte("in the way"), 0o600)
}

// TestFailedWriteTouchesNothing: a path that cannot be created stands for a
// volume that is full; both fail while the new version is being filled.
func TestFailedWriteTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, files("a", "1"), true)
	before := names(t, dir)
	for _, path := range []string{"a/" + strings.Repeat("x", 300), "../out", "/abs", "..data/x", "d//e", ""} {
		if _, err := mirror.Write(dir, files("a", "2", path, "")); err == nil {
			t.Errorf("a file %q is written", path)
		}
	}
	if !slices.Equal(names(t, dir), before) {
		t.Errorf("entries %v, want %v", names(t, dir), before)
	}
	if got, err := mirror.Read(dir); err != nil || string(got["a"].Content) != "1" {
		t.Errorf("a is %q, %v", got["a"].Content, err)
	}
}

func TestReadPlainDirectory(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	for name, content := range map[string]string{"prometheus.yml": "a", "rules/r.yml": "b", ".hidden": "c", "..reserved": "d"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(elsewhere, "x"), []byte("linked"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got, err := mirror.Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := files("prometheus.yml", "a", "rules/r.yml", "b", ".hidden", "c", "link/x", "linked")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestReadErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := mirror.Read(filepath.Join(dir, "missing")); err == nil {
		t.Error("a missing directory is read")
	}
	if err := os.Symlink(dir, filepath.Join(dir, "again")); err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.Read(dir); err == nil {
		t.Error("a directory that holds itself is read")
	}
}

func TestFingerprint(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]string{}
	note := func(change string) {
		t.Helper()
		f, err := mirror.Fingerprint(dir)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := mirror.Fingerprint(dir); err != nil || again != f {
			t.Errorf("%s: the fingerprint changes on its own", change)
		}
		if before, ok := seen[f]; ok {
			t.Errorf("%s: same fingerprint as %s", change, before)
		}
		seen[f] = change
	}
	note("empty")
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	note("a file")
	if err := os.WriteFile(plain, []byte("12"), 0o644); err != nil {
		t.Fatal(err)
	}
	note("a longer file")
	write(t, dir, files("a", "1"), true)
	note("a kubelet's layout")
	write(t, dir, files("a", "2"), true)
	note("a swap")
}

// TestReadersSeeOldOrNew reads two files that always change together.
func TestReadersSeeOldOrNew(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, files("a", "0", "b", "0"), true)
	done := make(chan error, 1)
	go func() {
		for i := range 300 {
			text := strings.Repeat("x", i%7+1)
			if _, err := mirror.Write(dir, files("a", text, "b", text)); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			return
		default:
		}
		got, err := mirror.Read(dir)
		if err != nil {
			continue // swapped away four times while being read: no mixture either
		}
		if string(got["a"].Content) != string(got["b"].Content) {
			t.Fatalf("a is %q and b is %q", got["a"].Content, got["b"].Content)
		}
	}
}

// TestMountPoints are made beside the files, before these become visible, and
// stay: another volume is mounted there.
func TestMountPoints(t *testing.T) {
	dir := t.TempDir()
	points := []mirror.MountPoint{{Name: "rules"}, {Name: "web.yml", File: true}}
	inode := func(name string) os.FileInfo {
		t.Helper()
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	if _, err := mirror.Write(dir, files("a", "1"), points...); err != nil {
		t.Fatal(err)
	}
	rules, web := inode("rules"), inode("web.yml")
	if !rules.IsDir() || rules.Mode().Perm() != 0o755 || !web.Mode().IsRegular() || web.Mode().Perm() != 0o644 {
		t.Errorf("rules %v, web.yml %v", rules.Mode(), web.Mode())
	}
	for _, next := range []mirror.Files{files("a", "2"), files("a", "2"), files("a", "3", "web.yml", "hidden by the mount", "rules/x", "")} {
		if _, err := mirror.Write(dir, next, points...); err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(rules, inode("rules")) || !os.SameFile(web, inode("web.yml")) {
			t.Fatal("a mount point was replaced")
		}
	}
	for _, bad := range []string{"", ".", "..data", "../x", "a/b", "/x"} {
		if _, err := mirror.Write(dir, files("a", "4"), mirror.MountPoint{Name: bad}); err == nil {
			t.Errorf("mount point %q is made", bad)
		}
	}
}
