package certificates

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// follow wakes the loop at each change of the object of that name, until the
// context ends. A change is only a reason to look: what counts is read live.
func (r *Rotator) follow(ctx context.Context, name string, open func(context.Context, metav1.ListOptions) (watch.Interface, error)) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	logged := ""
	backoff := newBackoff()
	for ctx.Err() == nil {
		began, pause := time.Now(), firstRetry
		// Without a resource version the watch begins with the object as it is.
		w, err := open(ctx, options)
		if err == nil {
			logged, backoff = "", newBackoff()
			r.drain(ctx, w)
			// What is missed until the next watch is seen by a look.
			r.poke()
		} else if ctx.Err() == nil {
			pause = backoff.Step()
			if err.Error() != logged {
				logged = err.Error()
				r.Logger.Warn("changes are seen late, because they cannot be watched", "name", name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause - time.Since(began)):
		}
	}
}

// drain returns when the watch ends, as it does every few minutes.
func (r *Rotator) drain(ctx context.Context, w watch.Interface) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-w.ResultChan():
			if !open || event.Type == watch.Error {
				return
			}
			r.poke()
		}
	}
}

// poke never blocks: one wake-up stands for all that are waiting.
func (r *Rotator) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
