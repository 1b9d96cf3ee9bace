// Package store reads and writes the breaker's state in the ConfigMap
// ampbridge-breaker. Package breaker does no I/O, so its fuzz target is fast.
package store

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// Read returns the state. Without a ConfigMap there is no entry. It needs get on the ConfigMap.
func Read(ctx context.Context, client corev1client.ConfigMapInterface) (breaker.State, error) {
	object, err := read(ctx, client)
	if object == nil {
		return nil, err
	}
	return object.Data, nil
}

// read returns nil if there is no ConfigMap.
func read(ctx context.Context, client corev1client.ConfigMapInterface) (*corev1.ConfigMap, error) {
	object, err := client.Get(ctx, breaker.ConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", breaker.ConfigMap, err)
	}
	return object, nil
}

// Change reads the state, and writes the result of edit if it differs. If somebody else
// wrote in between, it returns the API server's Conflict, and the caller
// tries again with the new state. It needs get, create and update.
func Change(ctx context.Context, client corev1client.ConfigMapInterface, edit func(breaker.State) breaker.State) (breaker.State, error) {
	object, err := read(ctx, client)
	if err != nil {
		return nil, err
	}
	var state breaker.State
	if object != nil {
		state = object.Data
	}
	next := edit(state)
	switch {
	case maps.Equal(next, state):
		return state, nil
	case object == nil:
		object = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: breaker.ConfigMap}, Data: next}
		_, err = client.Create(ctx, object, metav1.CreateOptions{})
	default:
		object.Data = next
		_, err = client.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("write ConfigMap %s: %w", breaker.ConfigMap, err)
	}
	return next, nil
}
