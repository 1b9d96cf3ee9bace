package sidecar

import (
	"context"
	"time"
)

// editLimit is how long the loop waits for one edit of a configuration. 100 KB
// take 50 ms; 32 MiB, the most that is edited at all, take seconds.
const editLimit = 10 * time.Second

// editor makes edits, one at a time, beside the loop, which waits for each no
// longer than limit. An edit cannot be stopped, so one that takes longer goes
// on: its result is used when it comes, and until then nothing else is edited.
type editor struct {
	limit time.Duration
	late  *job // an edit that took longer; nil: there is none
}

// job is an edit that was begun.
type job struct {
	key   string
	ended chan struct{}
	out   rendered // once ended
}

// do returns what work makes of what key stands for. It returns false where the
// limit, or ctx, ends first, or an earlier work has not ended yet.
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

// ready reports whether an edit that took longer has ended.
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
