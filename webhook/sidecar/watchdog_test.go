package sidecar

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestAlive judges by the heartbeat's age, and by nothing where there is none.
func TestAlive(t *testing.T) {
	o := Options{Credentials: t.TempDir()}
	if err := Alive(o); err != nil {
		t.Errorf("before the first heartbeat: %v", err)
	}
	testkit.Must(t, touch(o.heartbeat()))
	for name, tc := range map[string]struct {
		age   time.Duration
		alive bool
	}{
		"now": {0, true}, "a while ago": {beatLimit / 2, true}, "too old": {2 * beatLimit, false},
		"the clock was set back": {-time.Hour, true},
	} {
		at := time.Now().Add(-tc.age)
		testkit.Must(t, os.Chtimes(o.heartbeat(), at, at))
		if err := Alive(o); (err == nil) != tc.alive {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWatchdog: the heartbeat is there while the loop moves, and only then.
func TestWatchdog(t *testing.T) {
	for name, moves := range map[string]bool{"the loop moves": true, "the loop hangs": false} {
		t.Run(name, func(t *testing.T) {
			var log testkit.Buffer
			s := newServer(Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			s.started = time.Now().Add(-time.Hour)
			if moves {
				s.beat.Store(int64(time.Hour))
			}
			heartbeat := filepath.Join(t.TempDir(), "heartbeat")
			ctx, cancel := context.WithCancel(t.Context())
			var group sync.WaitGroup
			group.Go(func() { s.watchdog(ctx, heartbeat) })
			beats := func() bool { _, err := os.Stat(heartbeat); return err == nil }
			hangs := func() bool { return strings.Contains(log.String(), "the configuration loop hangs") }
			for deadline := time.Now().Add(20 * time.Second); !beats() && !hangs() && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond)
			}
			cancel()
			group.Wait()
			if beats() != moves || hangs() == moves {
				t.Errorf("heartbeat %v; log: %s", beats(), log.String())
			}
		})
	}
}

// TestIdleIsShown: a scrape shows how long the loop stands still, even where the loop
// hangs with the state locked.
func TestIdleIsShown(t *testing.T) {
	for name, tc := range map[string]struct{ hangs, locked bool }{
		"the loop moves": {false, false}, "the loop hangs": {true, false}, "the loop hangs and holds the lock": {true, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newServer(Options{})
			s.started = time.Now().Add(-time.Hour)
			if !tc.hangs {
				s.beat.Store(int64(time.Hour))
			}
			if tc.locked {
				s.mu.Lock()
				defer s.mu.Unlock()
			}
			families, err := s.metrics.registry.Gather()
			testkit.Must(t, err)
			for _, f := range families {
				if f.GetName() != "ampbridge_loop_idle_seconds" {
					continue
				}
				if idle := f.GetMetric()[0].GetGauge().GetValue(); (idle >= 3600) != tc.hangs {
					t.Errorf("idle for %v s", idle)
				}
				return
			}
			t.Error("the metrics lack ampbridge_loop_idle_seconds")
		})
	}
}

// TestTouchNamesWhatFails: a volume that cannot be written is told of.
func TestTouchNamesWhatFails(t *testing.T) {
	if err := touch(filepath.Join(t.TempDir(), "missing", "heartbeat")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}
