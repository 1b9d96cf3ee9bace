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
func (k *Keeper) follow(ctx context.Context, name string, open func(context.Context, metav1.ListOptions) (watch.Interface, error)) {
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()}
	for ctx.Err() == nil {
		began := time.Now()
		// Without a resource version the watch begins with the object as it is.
		if w, err := open(ctx, options); err == nil {
			k.drain(ctx, w)
		}
		// What was missed meanwhile is seen by a look.
		k.poke()
		pause := firstRetry - time.Since(began)
		select {
		case <-ctx.Done():
		case <-time.After(max(pause, 0)):
		}
	}
}

// drain returns when the watch ends, as it does every few minutes.
func (k *Keeper) drain(ctx context.Context, w watch.Interface) {
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case event, open := <-w.ResultChan():
			if !open || event.Type == watch.Error {
				return
			}
			k.poke()
		}
	}
}

// poke never blocks: one wake-up stands for all that are waiting.
func (k *Keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}
