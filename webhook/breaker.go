package webhook

import (
	"context"
	"fmt"
	"sync"

	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// BreakerIn returns a function that reads the circuit breaker's state in a namespace. Each call
// gets a state that is at least as new as the call. The identity needs permission to get the
// ConfigMap [breaker.ConfigMap] there.
//
// The state can be large, and all tenants share it. So only one read runs at a time, and all
// requests that arrive during it share the next read. However many pods one tenant creates, the
// pods of another tenant wait for at most two reads. A shared read starts after all requests that
// share it, so no request gets an older state than its own read would return.
func BreakerIn(config *rest.Config, namespace string) (func(context.Context) (breaker.State, error), error) {
	client, err := corev1client.NewForConfig(connection(config, maxBreaker))
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	r := sharedReads{turn: make(chan struct{}, 1), read: func(ctx context.Context) (breaker.State, error) {
		return store.Read(ctx, client.ConfigMaps(namespace))
	}}
	return r.get, nil
}

// sharedReads shares reads among the requests that wait for one.
type sharedReads struct {
	read func(context.Context) (breaker.State, error)
	// turn has an element while a read runs.
	turn chan struct{}

	mu sync.Mutex
	// next is the read that has not started yet; nil if there is none.
	next *sharedRead
}

// sharedRead is one read. Several requests use its state, so they must not change it.
type sharedRead struct {
	done  chan struct{}
	state breaker.State
	err   error
}

// get returns the state of a read that starts after the call.
func (r *sharedReads) get(ctx context.Context) (breaker.State, error) {
	r.mu.Lock()
	next := r.next
	if next == nil {
		next = &sharedRead{done: make(chan struct{})}
		r.next = next
		go r.run(context.WithoutCancel(ctx), next)
	}
	r.mu.Unlock()
	select {
	case <-next.done:
		return next.state, next.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the circuit breaker: %w", ctx.Err())
	}
}

// run waits for its turn and reads. It has a timeout of its own, because it does not belong to one
// request.
func (r *sharedReads) run(ctx context.Context, next *sharedRead) {
	r.turn <- struct{}{}
	r.mu.Lock()
	r.next = nil
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	defer func() {
		<-r.turn
		close(next.done)
	}()
	next.err = guard(func() (err error) {
		next.state, err = r.read(ctx)
		return err
	})()
}
