package sidecar

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestBellWakesWatchersOfTheFile: who watches the file, and not its directory,
// is told of every change, also where the file cannot be written to.
func TestBellWakesWatchersOfTheFile(t *testing.T) {
	for _, mode := range []os.FileMode{0o644, 0o444} {
		t.Run(mode.String(), func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "prometheus.yml")
			var b inodeNotifier
			begun := time.Now()
			t.Cleanup(func() {
				if err := b.close(); err != nil {
					t.Error(err)
				}
			})
			change := func(n int) {
				t.Helper()
				replaceConfig(t, dir, mode, n)
				testkit.Must(t, b.touch(path, begun.Add(time.Duration(n)*drained)))
			}
			change(0)
			watcher, err := fsnotify.NewWatcher()
			testkit.Must(t, err)
			t.Cleanup(func() {
				if err := watcher.Close(); err != nil {
					t.Error(err)
				}
			})
			testkit.Must(t, watcher.Add(path))
			for n := 1; n <= 5; n++ {
				change(n)
				select {
				case <-watcher.Events:
				case <-time.After(10 * time.Second):
					t.Fatalf("change %d is not noticed", n)
				}
				for quiet := false; !quiet; {
					select {
					case <-watcher.Events:
					case <-time.After(100 * time.Millisecond):
						quiet = true
					}
				}
			}
			if got, err := os.ReadFile(path); err != nil || string(got) != "# 5\n" {
				t.Errorf("the file in use holds %q, %v", got, err)
			}
		})
	}
}

// TestBellLeavesReadersTheirFile: two changes in a row take nothing away from
// who has just opened the file.
func TestBellLeavesReadersTheirFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "prometheus.yml")
	var b inodeNotifier
	t.Cleanup(func() {
		if err := b.close(); err != nil {
			t.Error(err)
		}
	})
	now := time.Now()
	var reader *os.File
	for n := range 3 {
		replaceConfig(t, dir, 0o644, n)
		testkit.Must(t, b.touch(path, now.Add(time.Duration(n)*time.Second)))
		if n == 0 {
			var err error
			if reader, err = os.Open(path); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, err := io.ReadAll(reader)
	if err = errors.Join(err, reader.Close()); err != nil || string(got) != "# 0\n" {
		t.Errorf("the reader got %q, %v", got, err)
	}
}

// replaceConfig serves another configuration.
func replaceConfig(t *testing.T, dir string, mode os.FileMode, n int) {
	t.Helper()
	testkit.Must(t, testkit.WriteVolume(dir, map[string]testkit.VolumeFile{
		"prometheus.yml": {Mode: mode, Data: fmt.Appendf(nil, "# %d\n", n)},
	}))
}
