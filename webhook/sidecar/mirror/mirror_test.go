package mirror_test

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/mirror"
)

// file is a file's permissions and bytes.
type file struct {
	Mode    fs.FileMode
	Content string
}

// files are the files of a volume, by slash-separated path.
type files map[string]file

func of(pairs ...string) files {
	f := files{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = file{0o644, pairs[i+1]}
	}
	return f
}

// in writes the files into a new directory.
func (f files) in(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for path, file := range f {
		name := filepath.Join(dir, path)
		testkit.Must(t, os.MkdirAll(filepath.Dir(name), 0o755))
		testkit.WriteFile(t, name, file.Content)
		testkit.Must(t, os.Chmod(name, file.Mode))
	}
	return dir
}

// read returns the files that a directory shows, through its symlinks.
func read(t *testing.T, dir string) files {
	t.Helper()
	f := files{}
	var visit func(prefix string)
	visit = func(prefix string) {
		entries, err := os.ReadDir(filepath.Join(dir, prefix))
		testkit.Must(t, err)
		for _, e := range entries {
			path := filepath.Join(prefix, e.Name())
			info, err := os.Stat(filepath.Join(dir, path))
			testkit.Must(t, err)
			switch {
			case prefix == "" && strings.HasPrefix(path, ".."):
			case info.IsDir():
				visit(path)
			default:
				content := testkit.ReadFile(t, filepath.Join(dir, path))
				f[path] = file{info.Mode().Perm(), content}
			}
		}
	}
	visit("")
	return f
}

func mirrored(source, target string, points ...mirror.MountPoint) (bool, error) {
	return mirror.Mirror(source, target, "", nil, points...)
}

func write(t *testing.T, dir string, f files, wantChanged bool) {
	t.Helper()
	changed, err := mirrored(f.in(t), dir)
	testkit.Must(t, err)
	if changed != wantChanged {
		t.Errorf("changed = %v, want %v", changed, wantChanged)
	}
	testkit.Equal(t, "read back", f, read(t, dir))
}

// names returns the entries of dir. Version directories are written as "..<time>".
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
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

func TestMirrorLaysOutLikeTheKubelet(t *testing.T) {
	dir := t.TempDir()
	f := of("prometheus.yml", "a: 1\n", "rules/a/b.yml", "\x00\xff", "rules/c.yml", "")
	f["secret"] = file{0o440, "s"}
	write(t, dir, f, true)
	want := []string{"..<time>", "..data", "prometheus.yml -> ..data/prometheus.yml", "rules -> ..data/rules", "secret -> ..data/secret"}
	testkit.Equal(t, "layout", want, names(t, dir))
	for name, mode := range map[string]fs.FileMode{"secret": 0o440, "prometheus.yml": 0o644, "rules": 0o755} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", name, info.Mode(), err, mode)
		}
	}
}

func TestMirrorSwapsOnlyChanges(t *testing.T) {
	dir := t.TempDir()
	first := of("a", "1", "b", "2", "d/e", "3")
	write(t, dir, first, true)
	before, err := os.Readlink(filepath.Join(dir, "..data"))
	testkit.Must(t, err)
	write(t, dir, maps.Clone(first), false)
	if after, err := os.Readlink(filepath.Join(dir, "..data")); err != nil || after != before {
		t.Errorf("..data moved from %s to %s without a change, %v", before, after, err)
	}
	mode := maps.Clone(first)
	mode["a"] = file{0o600, "1"}
	write(t, dir, mode, true)
	write(t, dir, of("a", "1", "d", "a file now"), true)
	testkit.Equal(t, "entries", []string{"..<time>", "..data", "a -> ..data/a", "d -> ..data/d"}, names(t, dir))
	write(t, dir, files{}, true)
}

// TestMirrorAfterACrash starts with what a crash at each step leaves behind.
func TestMirrorAfterACrash(t *testing.T) {
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
			write(t, dir, of("a", "1"), true)
			testkit.Must(t, crash(dir))
			_, err := mirrored(of("a", "1").in(t), dir)
			testkit.Must(t, err)
			write(t, dir, of("a", "2"), true)
			testkit.Equal(t, "entries", []string{"..<time>", "..data", "a -> ..data/a"}, names(t, dir))
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

// TestFailureTouchesNothing: a path that is too long for the volume fails as a full volume does
// ([TestFullVolume]): while the new set is being filled.
func TestFailureTouchesNothing(t *testing.T) {
	dir := t.TempDir()
	for len(dir) < 3000 {
		dir = filepath.Join(dir, strings.Repeat("d", 200))
	}
	testkit.Must(t, os.MkdirAll(dir, 0o755))
	write(t, dir, of("a", "1", "edited", "1"), true)
	before, was := names(t, dir), read(t, dir)
	long := strings.Repeat(strings.Repeat("x", 200)+"/", 7) + "x"
	if _, err := mirrored(of("a", "2", long, "").in(t), dir); !errors.Is(err, syscall.ENAMETOOLONG) {
		t.Errorf("a path that is too long: %v", err)
	}
	refused := errors.New("refused")
	_, err := mirror.Mirror(of("a", "2", "edited", "2").in(t), dir, "edited", func([]byte) ([]byte, error) { return nil, refused })
	if !errors.Is(err, refused) {
		t.Errorf("an edit that fails: %v", err)
	}
	testkit.Equal(t, "entries", before, names(t, dir))
	testkit.Equal(t, "files", was, read(t, dir))
}

// TestEdit: each new set has a new copy of the edited file, because a program that has the old copy
// open may empty it. The other files are not copied again.
func TestEdit(t *testing.T) {
	source, target := of("config", "a", "rules/r", "b", "rules/s", "c").in(t), t.TempDir()
	calls := 0
	do := func(wantChanged bool) {
		t.Helper()
		changed, err := mirror.Mirror(source, target, "config", func(content []byte) ([]byte, error) {
			calls++
			return append(content, " and more"...), nil
		})
		testkit.Must(t, err)
		if changed != wantChanged {
			t.Errorf("changed = %v, want %v", changed, wantChanged)
		}
	}
	inode := func(path string) fs.FileInfo {
		t.Helper()
		info, err := os.Stat(filepath.Join(target, path))
		testkit.Must(t, err)
		return info
	}
	do(true)
	config, r, s := inode("config"), inode("rules/r"), inode("rules/s")
	do(false)
	if !os.SameFile(config, inode("config")) {
		t.Error("the configuration was replaced without a change")
	}
	testkit.WriteFile(t, filepath.Join(source, "rules/s"), "C")
	do(true)
	if calls != 3 {
		t.Errorf("edited %d times", calls)
	}
	for path, is := range map[string]bool{
		"config": os.SameFile(config, inode("config")), "rules/r": !os.SameFile(r, inode("rules/r")), "rules/s": os.SameFile(s, inode("rules/s")),
	} {
		if is {
			t.Errorf("%s: an edited or changed file is a new one, and the others stay", path)
		}
	}
	testkit.Equal(t, "the volume", of("config", "a and more", "rules/r", "b", "rules/s", "C"), read(t, target))
	// Without the file there is nothing to edit.
	testkit.Must(t, os.Remove(filepath.Join(source, "config")))
	do(true)
	if calls != 3 {
		t.Errorf("a file that is not there was edited")
	}
}

// TestSwapWhileEditing: the edit takes long, and the kubelet swaps the source meanwhile.
func TestSwapWhileEditing(t *testing.T) {
	source, target := t.TempDir(), t.TempDir()
	swap := func(text string) {
		testkit.Must(t, testkit.WriteVolume(source, map[string]testkit.VolumeFile{
			"config": {Mode: 0o644, Data: []byte(text)}, "rules": {Mode: 0o644, Data: []byte(text)},
		}))
	}
	swap("old")
	var seen []string
	changed, err := mirror.Mirror(source, target, "config", func(content []byte) ([]byte, error) {
		if seen = append(seen, string(content)); len(seen) == 1 {
			swap("new")
		}
		return content, nil
	})
	testkit.Must(t, err)
	if diff := cmp.Diff([]string{"old", "new"}, seen); diff != "" || !changed {
		t.Errorf("changed %v, edited (-want +got):\n%s", changed, diff)
	}
	testkit.Equal(t, "the volume", of("config", "new", "rules", "new"), read(t, target))
	// Mirror does not wait for a source that never stops changing.
	if _, err := mirror.Mirror(source, target, "config", func(content []byte) ([]byte, error) {
		swap(string(content) + "!")
		return content, nil
	}); err == nil || !strings.Contains(err.Error(), "faster than it can be read") {
		t.Errorf("a source that never rests: %v", err)
	}
	testkit.Equal(t, "the volume", of("config", "new", "rules", "new"), read(t, target))
}

func TestMirrorPlainDirectory(t *testing.T) {
	source := of("prometheus.yml", "a", "rules/r.yml", "b", ".hidden", "c", "..reserved", "d").in(t)
	elsewhere, target := of("x", "linked").in(t), t.TempDir()
	testkit.Must(t, os.Symlink(elsewhere, filepath.Join(source, "link")))
	_, err := mirrored(source, target)
	testkit.Must(t, err)
	want := of("prometheus.yml", "a", "rules/r.yml", "b", ".hidden", "c", "link/x", "linked")
	testkit.Equal(t, "the volume", want, read(t, target))
}

func TestSourceErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := mirrored(filepath.Join(dir, "missing"), t.TempDir()); err == nil {
		t.Error("a missing directory is read")
	}
	testkit.Must(t, os.Symlink(dir, filepath.Join(dir, "again")))
	if _, err := mirrored(dir, t.TempDir()); err == nil {
		t.Error("a directory that holds itself is read")
	}
}

func TestFingerprint(t *testing.T) {
	dir := t.TempDir()
	seen := map[string]string{}
	note := func(change string) {
		t.Helper()
		f, err := mirror.Fingerprint(dir)
		testkit.Must(t, err)
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
	testkit.Must(t, os.WriteFile(plain, []byte("1"), 0o644))
	note("a file")
	testkit.Must(t, os.WriteFile(plain, []byte("12"), 0o644))
	note("a longer file")
	write(t, dir, of("a", "1"), true)
	note("a kubelet's layout")
	write(t, dir, of("a", "2"), true)
	note("a swap")
}

// TestReadersSeeOldOrNew mirrors two files that always change together, and checks what a reader of
// the target sees in the meantime.
func TestReadersSeeOldOrNew(t *testing.T) {
	source, target := t.TempDir(), t.TempDir()
	swap := func(i int) error {
		data := bytes.Repeat([]byte("x"), i%7+1)
		return testkit.WriteVolume(source, map[string]testkit.VolumeFile{"a": {Mode: 0o644, Data: data}, "b": {Mode: 0o644, Data: data}})
	}
	testkit.Must(t, swap(0))
	_, err := mirrored(source, target)
	testkit.Must(t, err)
	done := make(chan error, 1)
	go func() {
		for i := range 300 {
			if err := swap(i); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	swaps := 0
	for {
		select {
		case err := <-done:
			testkit.Must(t, err)
			if swaps == 0 {
				t.Error("nothing was mirrored meanwhile")
			}
			return
		default:
		}
		// If the source is swapped four times while it is read, the reader sees no mixture either.
		if changed, err := mirrored(source, target); err == nil && changed {
			swaps++
		}
		if got := read(t, target); got["a"] != got["b"] {
			t.Fatalf("a is %q and b is %q", got["a"].Content, got["b"].Content)
		}
	}
}

// TestMountPoints: mount points are created before the files become visible, and stay, because
// other volumes are mounted there.
func TestMountPoints(t *testing.T) {
	dir := t.TempDir()
	points := []mirror.MountPoint{{Name: "rules"}, {Name: "web.yml", File: true}}
	inode := func(name string) os.FileInfo {
		t.Helper()
		info, err := os.Lstat(filepath.Join(dir, name))
		testkit.Must(t, err)
		return info
	}
	_, err := mirrored(of("a", "1").in(t), dir, points...)
	testkit.Must(t, err)
	rules, web := inode("rules"), inode("web.yml")
	if !rules.IsDir() || rules.Mode().Perm() != 0o755 || !web.Mode().IsRegular() || web.Mode().Perm() != 0o644 {
		t.Errorf("rules %v, web.yml %v", rules.Mode(), web.Mode())
	}
	for _, next := range []files{of("a", "2"), of("a", "2"), of("a", "3", "web.yml", "hidden by the mount", "rules/x", "")} {
		_, err := mirrored(next.in(t), dir, points...)
		testkit.Must(t, err)
		if !os.SameFile(rules, inode("rules")) || !os.SameFile(web, inode("web.yml")) {
			t.Fatal("a mount point was replaced")
		}
	}
	for _, bad := range []string{"", ".", "..data", "../x", "a/b", "/x"} {
		if _, err := mirrored(of("a", "4").in(t), dir, mirror.MountPoint{Name: bad}); err == nil {
			t.Errorf("mount point %q is made", bad)
		}
	}
}
