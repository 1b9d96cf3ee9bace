package awstest

import (
	"slices"
	"time"
)

// timeline keeps every version of an IAM entity with the time when it was
// written, so that a reader can see an earlier state.
// Versions are never changed: a write adds a copy.
type timeline[T any] struct {
	versions []version[T]
}

type version[T any] struct {
	at    time.Time
	value *T // nil means deleted
}

// set makes value the newest version. A nil value deletes.
func (t *timeline[T]) set(value *T, at time.Time) {
	t.versions = append(t.versions, version[T]{at, value})
}

// latest returns the newest version; nil if there is none.
func (t *timeline[T]) latest() *T {
	if t == nil || len(t.versions) == 0 {
		return nil
	}
	return t.versions[len(t.versions)-1].value
}

// seen returns the newest version that was written at that time or before.
func (t *timeline[T]) seen(at time.Time) *T {
	if t == nil {
		return nil
	}
	for _, v := range slices.Backward(t.versions) {
		if !v.at.After(at) {
			return v.value
		}
	}
	return nil
}

// entities are the timelines of one kind of entity, by key.
type entities[T any] map[string]*timeline[T]

func (e entities[T]) set(key string, value *T, at time.Time) {
	if e[key] == nil {
		e[key] = &timeline[T]{}
	}
	e[key].set(value, at)
}

// count is the number of entities that exist.
func (e entities[T]) count() int {
	n := 0
	for _, t := range e {
		if t.latest() != nil {
			n++
		}
	}
	return n
}
