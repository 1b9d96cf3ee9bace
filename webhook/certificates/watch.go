package certificates

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
)

// follow wakes the loop at each change of the object with that name, until the
// context ends. A change only starts a pass, which reads the objects itself.
func (r *Rotator) follow(ctx context.Context, name string, open func(context.Context, metav1.ListOptions) (watch.Interface, error)) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	logged := ""
	backoff := newBackoff()
	for ctx.Err() == nil {
		began, pause := time.Now(), firstRetry
		// Without a resource version the watch begins with the current object.
		w, err := open(ctx, options)
		if err == nil {
			logged, backoff = "", newBackoff()
			r.drain(ctx, w)
			// A pass sees the changes between two watches.
			r.poke()
		} else if ctx.Err() == nil {
			pause = backoff.Step()
			if err.Error() != logged {
				logged = err.Error()
				r.Logger.Warn("cannot watch the object, so changes are seen late", "name", name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause - time.Since(began)):
		}
	}
}

// drain returns when the watch ends, which happens every few minutes.
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

// poke never blocks. One wake-up is enough for several changes.
func (r *Rotator) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}
