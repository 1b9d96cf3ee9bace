package policyfile_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var (
	good   = policytest.Granting("prometheus", "monitoring")
	paused = good + "paused: true\n"
	broken = good + "pausd: true\n"
)

// history records what a watcher reports, in a line each.
type history struct{ testkit.Buffer }

func (h *history) add(format string, args ...any) { _, _ = fmt.Fprintf(h, format+"\n", args...) }

func (h *history) list() []string { return slices.Collect(strings.Lines(h.String())) }

// watch starts a watcher of the file that records its reports.
func watch(path string, store policyfile.Store) (*policyfile.Watcher, *history) {
	h := &history{}
	return policyfile.Watch(policyfile.Options{
		Path: path, Store: store,
		Loaded: func(p *policy.Policy, data []byte) {
			h.add("loaded %d bytes, paused %v", len(data), p.Paused)
		},
		Refused: func(err error, inForce bool) {
			first, _, _ := strings.Cut(err.Error(), "\n")
			h.add("refused, in force %v: %v", inForce, first)
		},
		Restored: func(p *policy.Policy, data []byte, version string) {
			h.add("restored %d bytes of version %s, paused %v", len(data), version, p.Paused)
		},
		StoreFailed: func(err error) { h.add("store failed: %v", err) },
	}), h
}

// directory keeps the accepted copy in a file of the directory.
type directory string

func (d directory) String() string { return "the directory" }

func (d directory) Load(context.Context) ([]byte, string, error) {
	data, err := os.ReadFile(filepath.Join(string(d), "accepted.yaml"))
	if err != nil {
		return nil, "", errors.New("no copy")
	}
	return data, policy.SchemaVersion, nil
}

func (d directory) Save(_ context.Context, data []byte) error {
	return os.WriteFile(filepath.Join(string(d), "accepted.yaml"), data, 0o600)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	// As editors save: a new file takes the name.
	next := path + ".next"
	testkit.Must(t, errors.Join(os.WriteFile(next, []byte(content), 0o600), os.Rename(next, path)))
}

func TestEachVersionIsReportedOnceAndAMistakeKeepsTheLastGoodPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	w, h := watch(path, nil)
	if w.Current() != nil || w.Err() == nil {
		t.Fatalf("no file: got %v, %v; want no policy and an error", w.Current(), w.Err())
	}
	go w.Follow(t.Context())

	write(t, path, good)
	testkit.Eventually(t, "the file is loaded", func() bool { return w.Current() != nil && w.Err() == nil })
	first := w.Current()
	write(t, path, broken)
	testkit.Eventually(t, "the mistake is refused", func() bool { return w.Err() != nil })
	if w.Current() != first || !strings.Contains(w.Err().Error(), "pausd") {
		t.Errorf("got %v, %v; want the last good policy, and an error that names pausd", w.Current(), w.Err())
	}
	testkit.Must(t, os.Remove(path))
	testkit.Eventually(t, "the loss is noticed", func() bool { return errors.Is(w.Err(), os.ErrNotExist) })
	if w.Current() != first {
		t.Error("the policy went with its file")
	}
	write(t, path, paused)
	testkit.Eventually(t, "the next good version is in force", func() bool { return w.Current().Paused && w.Err() == nil })

	want := []string{
		"refused, in force false: open " + path,
		fmt.Sprintf("loaded %d bytes, paused false", len(good)),
		"refused, in force true: line 9: pausd",
		"refused, in force true: open " + path,
		fmt.Sprintf("loaded %d bytes, paused true", len(paused)),
	}
	if got := h.list(); !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("reported:\n%s\nwant prefixes:\n%s", strings.Join(got, ""), strings.Join(want, "\n"))
	}
}

func TestLastGoodVersionIsKeptInTheStoreAndRestored(t *testing.T) {
	dir := t.TempDir()
	path, store := filepath.Join(dir, "policy.yaml"), directory(filepath.Join(dir, "store"))
	kept := func() string {
		data, _, _ := store.Load(t.Context())
		return string(data)
	}
	write(t, path, good)
	first, h := watch(path, store)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); first.Persist(ctx) }()
	go first.Follow(ctx)
	// The store has no place to write to, at first.
	testkit.Eventually(t, "the failure is reported", func() bool { return len(h.list()) == 2 })
	testkit.Must(t, os.Mkdir(string(store), 0o700))
	testkit.Eventually(t, "the first version is kept", func() bool { return kept() == good })
	write(t, path, paused)
	testkit.Eventually(t, "the next version is kept", func() bool { return kept() == paused })
	write(t, path, broken)
	testkit.Eventually(t, "the mistake is refused", func() bool { return first.Err() != nil })
	stop()
	<-done
	if kept() != paused {
		t.Error("the copy is not the last good version")
	}

	// A process that starts while the file is bad.
	next, h := watch(path, store)
	if err := next.Restore(t.Context()); err != nil || next.Current() == nil || !next.Current().Paused || next.Err() == nil {
		t.Errorf("restored %v, %v; the file's error is %v", next.Current(), err, next.Err())
	}
	if err := next.Restore(t.Context()); err != nil {
		t.Errorf("restored again: %v", err)
	}
	want := []string{
		"refused, in force false: line 9: pausd",
		fmt.Sprintf("restored %d bytes of version %s, paused true", len(paused), policy.SchemaVersion),
	}
	if got := h.list(); !slices.EqualFunc(got, want, strings.HasPrefix) {
		t.Errorf("reported:\n%s\nwant prefixes:\n%s", strings.Join(got, ""), strings.Join(want, "\n"))
	}
}

func TestRestoreReturnsWhyThereIsNoPolicy(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "policy.yaml")
	write(t, path, broken)
	w, _ := watch(path, directory(dir))
	if err := w.Restore(t.Context()); err == nil || err.Error() != "no copy" {
		t.Errorf("an empty store: got %v", err)
	}
	write(t, filepath.Join(dir, "accepted.yaml"), broken)
	want := fmt.Sprintf("the copy of version %q in the directory is not a policy: ", policy.SchemaVersion)
	if err := w.Restore(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) || w.Current() != nil {
		t.Errorf("a copy with a mistake: got %v, policy %v; want an error with %q", err, w.Current(), want)
	}
}

func TestLoadNamesTheFileInEachMistake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, path, broken+"sts: {endpiont: x}\n")
	_, err := policyfile.Load(path, strings.NewReader(""))
	if err == nil || strings.Count(err.Error(), path+": line ") != 2 {
		t.Errorf("got %v, want two lines that name the file", err)
	}
	_, err = policyfile.Load(policyfile.Stdin, strings.NewReader(broken))
	if err == nil || !strings.HasPrefix(err.Error(), "standard input: line 9: pausd") {
		t.Errorf("got %v, want a line that names standard input", err)
	}
	if p, err := policyfile.Load(policyfile.Stdin, strings.NewReader(good)); err != nil || p.Cluster.Name != "dev" {
		t.Errorf("got %v, %v", p, err)
	}
}
