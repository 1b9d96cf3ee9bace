package webhook

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/semaphore"
)

const (
	// maxLookups is how many pods do look-ups at the same time.
	maxLookups = 16
	// maxNamespaceLookups is how many of these pods may be in one namespace. A tenant's own slow
	// objects must not delay the pods of others.
	maxNamespaceLookups = 4
)

// lookups limits how many pods do look-ups at the same time.
type lookups struct {
	all *semaphore.Weighted

	mu         sync.Mutex
	namespaces map[string]*namespaceLookups
}

type namespaceLookups struct {
	turns *semaphore.Weighted
	users int // requests that have a turn or wait for one
}

func newLookups() *lookups {
	return &lookups{all: semaphore.NewWeighted(maxLookups), namespaces: map[string]*namespaceLookups{}}
}

// take waits for a turn until the context ends. The caller gives the turn back with done.
func (l *lookups) take(ctx context.Context, namespace string) (done func(), err error) {
	n := l.enter(namespace)
	if err := n.turns.Acquire(ctx, 1); err != nil {
		l.leave(namespace, n)
		return nil, fmt.Errorf("wait for other look-ups of namespace %s: %w", namespace, err)
	}
	if err := l.all.Acquire(ctx, 1); err != nil {
		n.turns.Release(1)
		l.leave(namespace, n)
		return nil, fmt.Errorf("wait for other look-ups: %w", err)
	}
	return func() {
		l.all.Release(1)
		n.turns.Release(1)
		l.leave(namespace, n)
	}, nil
}

func (l *lookups) enter(namespace string) *namespaceLookups {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.namespaces[namespace]
	if n == nil {
		n = &namespaceLookups{turns: semaphore.NewWeighted(maxNamespaceLookups)}
		l.namespaces[namespace] = n
	}
	n.users++
	return n
}

func (l *lookups) leave(namespace string, n *namespaceLookups) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.users--; n.users == 0 {
		delete(l.namespaces, namespace)
	}
}
