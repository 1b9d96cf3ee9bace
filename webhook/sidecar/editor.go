package sidecar

import (
	"context"
	"time"
)

// editLimit is how long the loop waits for one edit of a configuration. 100 KB
// take 50 ms. The largest configuration that is edited has 32 MiB, which takes seconds.
const editLimit = 10 * time.Second

// editor makes edits, one at a time, in parallel to the loop, which waits for each edit
// at most for limit. An edit cannot be stopped. If it takes longer, it
// continues, and its result is used later. Until then nothing else is edited.
type editor struct {
	limit time.Duration
	late  *job // an edit that takes longer than limit; nil if there is none
}

// job is an edit in progress.
type job struct {
	key   string
	ended chan struct{}
	out   rendered // after the edit has ended
}

// do returns the result of work, which is identified by key. It returns false if the
// limit or ctx ends first, or if an earlier work has not ended yet.
func (e *editor) do(ctx context.Context, key string, work func() rendered) (rendered, bool) {
	if e.late != nil {
		if !e.ready() {
			return rendered{}, false
		}
		ended := e.late
		e.late = nil
		if ended.key == key {
			return ended.out, true
		}
	}
	j := &job{key: key, ended: make(chan struct{})}
	go func() {
		defer close(j.ended)
		j.out = work()
	}()
	timer := time.NewTimer(e.limit)
	defer timer.Stop()
	select {
	case <-j.ended:
		return j.out, true
	case <-timer.C:
	case <-ctx.Done():
	}
	e.late = j
	return rendered{}, false
}

// ready reports whether an edit that took longer than limit has ended.
func (e *editor) ready() bool {
	if e.late == nil {
		return false
	}
	select {
	case <-e.late.ended:
		return true
	default:
		return false
	}
}
