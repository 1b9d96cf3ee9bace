package webhook

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// However many requests there are, only one read runs at a time. Each request gets the state of a
// read that started after the request.
func TestSharedReads(t *testing.T) {
	var reads, running atomic.Int32
	version := func() string { return string('a' + reads.Load()) }
	r := sharedReads{turn: make(chan struct{}, 1), read: func(context.Context) (breaker.State, error) {
		if running.Add(1) > 1 {
			t.Error("two reads run at the same time")
		}
		defer running.Add(-1)
		reads.Add(1)
		state := breaker.State{"version": version()}
		time.Sleep(5 * time.Millisecond)
		return state, nil
	}}
	var group sync.WaitGroup
	for range 500 {
		group.Go(func() {
			before := version()
			state, err := r.get(t.Context())
			if err != nil || state["version"] <= before {
				t.Errorf("got %v, %v, want a read after %q", state, err, before)
			}
		})
	}
	group.Wait()
	if n := reads.Load(); n < 1 || n > 20 {
		t.Errorf("500 requests at once took %d reads", n)
	}
}

// A request that gives up does not disturb the others. An error reaches all requests that share the
// read, but no later ones.
func TestSharedReadsFail(t *testing.T) {
	release := make(chan struct{})
	failing := atomic.Bool{}
	r := sharedReads{turn: make(chan struct{}, 1), read: func(context.Context) (breaker.State, error) {
		<-release
		if failing.Load() {
			return nil, errors.New("no answer")
		}
		return breaker.State{"a": "b"}, nil
	}}
	failing.Store(true)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.get(impatient); !errors.Is(err, context.Canceled) {
		t.Errorf("a request that gave up: got %v, want %v", err, context.Canceled)
	}
	close(release)
	if _, err := r.get(t.Context()); err == nil {
		t.Error("the error of the read is lost")
	}
	failing.Store(false)
	if state, err := r.get(t.Context()); err != nil || state["a"] != "b" {
		t.Errorf("after the error: got %v, %v", state, err)
	}
	r.read = func(context.Context) (breaker.State, error) { panic("a fault") }
	if _, err := r.get(t.Context()); !errors.As(err, &panicked{}) {
		t.Errorf("a panic of the read: got %v", err)
	}
}
