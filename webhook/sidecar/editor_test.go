package sidecar

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// TestEditorDoesNotWait: an edit that takes too long continues, and its result is used when it is
// ready. Until then no other edit begins.
func TestEditorDoesNotWait(t *testing.T) {
	e := editor{limit: time.Millisecond}
	finish := make(chan struct{})
	slow := func() rendered { <-finish; return rendered{result: "slow"} }
	fast := func() rendered { return rendered{result: "fast"} }
	if _, ok := e.do(t.Context(), "a", slow); ok || e.ready() {
		t.Fatal("the slow edit has ended")
	}
	if _, ok := e.do(t.Context(), "b", fast); ok {
		t.Error("a second edit was begun beside the first")
	}
	close(finish)
	<-e.late.ended
	if out, ok := e.do(t.Context(), "a", fast); !ok || out.result != "slow" || e.ready() {
		t.Errorf("%v, %+v: want the slow edit's result, once", ok, out)
	}
	e.limit = time.Minute
	if out, ok := e.do(t.Context(), "b", fast); !ok || out.result != "fast" {
		t.Errorf("%v, %+v: want another edit's result", ok, out)
	}
}

// TestEditorForgetsAnEditOfSomethingElse: a late result is used only for the input that it was made
// from.
func TestEditorForgetsAnEditOfSomethingElse(t *testing.T) {
	e := editor{limit: time.Millisecond}
	finish := make(chan struct{})
	e.do(t.Context(), "a", func() rendered { <-finish; return rendered{result: "old"} })
	close(finish)
	<-e.late.ended
	e.limit = time.Minute
	if out, ok := e.do(t.Context(), "b", func() rendered { return rendered{result: "new"} }); !ok || out.result != "new" {
		t.Errorf("%v, %+v: want the new edit's result", ok, out)
	}
}

// TestEditorEndsWithItsContext: a running edit does not delay the end of the process.
func TestEditorEndsWithItsContext(t *testing.T) {
	e := editor{limit: time.Hour}
	finish := make(chan struct{})
	defer close(finish)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, ok := e.do(ctx, "a", func() rendered { <-finish; return rendered{} }); ok {
		t.Error("an edit that hangs has a result")
	}
}

// TestLateEditIsServed: while an edit continues, the user's own configuration is served, with the
// reason. The block follows later.
func TestLateEditIsServed(t *testing.T) {
	dir := t.TempDir()
	a := sidecarconfig.Config{
		Version: sidecarconfig.VersionSigV4, Source: filepath.Join(dir, "source"), Target: filepath.Join(dir, "target"), File: "prometheus.yml",
		Credentials: filepath.Join(dir, "credentials", "credentials"), Token: "token",
		Destinations: []sidecarconfig.Destination{{Name: "central", Block: *due(t)[0].signing}},
	}
	for _, d := range []string{a.Source, a.Target, filepath.Dir(a.Credentials)} {
		testkit.Must(t, os.Mkdir(d, 0o755))
	}
	user := "x: [" + strings.Repeat("a,", 1<<16) + "]\n"
	testkit.Must(t, os.WriteFile(filepath.Join(a.Source, a.File), []byte(user), 0o644))
	s := newServer(Options{Config: a.Encode()})
	s.destinations[0].latest.Store(&session.Session{AccessKeyID: "ASIA", Obtained: time.Now(), Expires: time.Now().Add(time.Hour)})
	s.editor.limit = 0
	served := func() string {
		content := testkit.ReadFile(t, filepath.Join(a.Target, a.File))
		return content
	}
	s.step(t.Context(), time.Now())
	if served() != user || s.served.result != "passed_through" || !strings.Contains(s.served.lastError, "the result is served later") {
		t.Fatalf("served %.80q as %s: %s", served(), s.served.result, s.served.lastError)
	}
	<-s.editor.late.ended
	s.step(t.Context(), time.Now())
	if !strings.Contains(served(), "name: ampbridge-central") || s.served.result != "rendered" {
		t.Errorf("served %.80q as %s: %s", served(), s.served.result, s.served.lastError)
	}
}
