package sidecar

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// TestMovesAfterARestart: a restarted sidecar has not read Prometheus's metrics yet. It must not
// remove the block with sigv4 before that, because Prometheus may have samples for it.
func TestMovesAfterARestart(t *testing.T) {
	const sigv4, moving, relay = sidecarconfig.DeliverySigV4, sidecarconfig.DeliveryMoving, sidecarconfig.DeliveryRelay
	for name, tc := range map[string]struct {
		from sidecarconfig.Delivery
		age  time.Duration // of the session, which lasts half an hour
		want sidecarconfig.Delivery
	}{
		"in the middle of a move":                       {from: moving, age: 21 * time.Minute, want: moving},
		"after a move became due":                       {from: sigv4, age: 21 * time.Minute, want: moving},
		"long before a move":                            {from: sigv4, age: 5 * time.Minute, want: sigv4},
		"in the middle of a move, at the session's end": {from: moving, age: 30 * time.Minute, want: relay},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for _, d := range []string{"source", "target", "memory"} {
				testkit.Must(t, os.Mkdir(filepath.Join(dir, d), 0o750))
			}
			var d policy.Destination
			testkit.Must(t, d.Workspace.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-central")))
			d.Name = "central"
			config := sidecarconfig.Config{
				Version: sidecarconfig.VersionSigV4, Source: filepath.Join(dir, "source"), Target: filepath.Join(dir, "target"),
				File: "prometheus.yml", Credentials: filepath.Join(dir, "memory", "credentials"), Token: filepath.Join(dir, "token"),
				SessionSeconds: 1800, Prometheus: sidecarconfig.Prometheus{Address: "127.0.0.1:1"},
				Destinations: []sidecarconfig.Destination{{
					Name: "central", Region: "eu-west-1", Delivery: policy.DeliverySigV4, Block: d.Block("dev"),
				}},
			}
			now := time.Now()
			start := func() *server {
				s := newServer(Options{Config: config.Encode(), Pod: "prometheus-0", Namespace: "monitoring"})
				if s.listener != nil {
					testkit.Must(t, s.listener.Close()) // a restart takes the port again
				}
				return s
			}
			before := start()
			testkit.Must(t, before.store.Put(before.destinations[0].profile(), session.Session{
				AccessKeyID: "ASIA", SecretAccessKey: "secret", SessionToken: "token",
				Obtained: now.Add(-tc.age), Expires: now.Add(30*time.Minute - tc.age),
			}))
			before.destinations[0].delivery, before.destinations[0].movedAt = tc.from, now
			before.remember()

			after := start()
			after.advance(now)
			if got := after.destinations[0].delivery; got != tc.want {
				t.Errorf("%s after the restart, want %s", got, tc.want)
			}
		})
	}
}

// keeper is a server that keeps what Prometheus loads below a directory. Its Prometheus does not answer.
func keeper(dir string) *server {
	s := &server{
		config: sidecarconfig.Config{
			Prometheus:   sidecarconfig.Prometheus{Address: "127.0.0.1:1"},
			Destinations: []sidecarconfig.Destination{{Name: "central"}},
		},
		last: lastLoadedIn(func(name string) string { return filepath.Join(dir, name) }),
		log:  slog.New(slog.DiscardHandler),
	}
	s.destinations = []*destination{{Destination: s.config.Destinations[0]}}
	return s
}

// TestCandidateThatCannotBeKept: if the memory volume is too full for a copy of the user's files,
// there is no copy to serve in a rescue. An empty directory in a rescue would remove the
// configuration.
func TestCandidateThatCannotBeKept(t *testing.T) {
	for name, before := range map[string]func(s *server) error{
		// A directory at the place of the symlink fails the mirror after its first step, as a full volume does.
		"the first one": func(s *server) error { return os.MkdirAll(filepath.Join(s.last.next, "..data"), 0o700) },
		"a later one, beside one that loaded": func(s *server) error {
			return errors.Join(
				os.MkdirAll(s.last.loaded, 0o700),
				os.WriteFile(filepath.Join(s.last.loaded, "prometheus.yml"), []byte("loaded"), 0o600),
				os.MkdirAll(filepath.Join(s.last.next, "..data"), 0o700),
			)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			source := filepath.Join(dir, "source")
			testkit.Must(t, os.Mkdir(source, 0o750))
			testkit.WriteFile(t, filepath.Join(source, "prometheus.yml"), "next")
			s := keeper(dir)
			testkit.Must(t, before(s))
			if err := s.keepNext(source, []wanted{{name: "central", signing: new(policy.Block)}}); err == nil {
				t.Fatal("the candidate was kept")
			}
			testkit.Must(t, s.last.serve())
			s.noteTaken()
			if !s.last.exists() {
				return // there is nothing to serve
			}
			text, err := os.ReadFile(filepath.Join(s.last.loaded, "prometheus.yml"))
			if err != nil || string(text) != "loaded" {
				t.Errorf("what would be served in a rescue: %q, %v", text, err)
			}
		})
	}
}

// TestLoadedBeforeTheNextIsServed: Prometheus may load the served files while the next ones are
// still being edited. Then the served files are kept, and not the next ones.
func TestLoadedBeforeTheNextIsServed(t *testing.T) {
	dir := t.TempDir()
	s := keeper(dir)
	prepare := func(text string) {
		source := filepath.Join(dir, "source of "+text)
		testkit.Must(t, errors.Join(os.Mkdir(source, 0o750), os.WriteFile(filepath.Join(source, "prometheus.yml"), []byte(text), 0o600)))
		testkit.Must(t, s.keepNext(source, []wanted{{name: "central", signing: new(policy.Block)}}))
	}
	loaded := func() string {
		text := testkit.ReadFile(t, filepath.Join(s.last.loaded, "prometheus.yml"))
		return text
	}
	prepare("first")
	testkit.Must(t, s.last.serve())
	prepare("second")
	s.noteTaken()
	if got := loaded(); got != "first" {
		t.Errorf("%s is kept, and Prometheus has loaded the first", got)
	}
	testkit.Must(t, s.last.serve())
	if got := loaded(); got != "first" {
		t.Errorf("%s is kept before Prometheus has loaded it", got)
	}
	s.noteTaken()
	if got := loaded(); got != "second" {
		t.Errorf("%s is kept, and Prometheus has loaded the second", got)
	}
}

// TestExpiredSessionsAskSeldom: each write that AMP refuses requests a session, but STS is not
// called for each.
func TestExpiredSessionsAskSeldom(t *testing.T) {
	d := &destination{expired: make(chan struct{}, 1)}
	s := &server{}
	d.expired <- struct{}{}
	begun := time.Now()
	if !s.awaitRenewal(t.Context(), d, begun, 300*time.Millisecond) || time.Since(begun) < 300*time.Millisecond {
		t.Error("a session is asked for right after an attempt")
	}
	d.expired <- struct{}{}
	begun = time.Now()
	if !s.awaitRenewal(t.Context(), d, begun.Add(-2*minRenewal), time.Hour) || time.Since(begun) > time.Minute {
		t.Error("no session is asked for")
	}
}
