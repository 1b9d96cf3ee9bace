package webhook_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// afterBreaker answers only after the read of the circuit breaker has started.
type afterBreaker struct {
	webhook.Cluster
	reading chan struct{}
}

func (c afterBreaker) ServiceAccountAndLimits(ctx context.Context, namespace, name string) (map[string]string, inject.Limits, error) {
	select {
	case <-c.reading:
		return c.Cluster.ServiceAccountAndLimits(ctx, namespace, name)
	case <-ctx.Done():
		return nil, inject.Limits{}, errors.New("the circuit breaker was not read at the same time")
	}
}

func TestBreakerIsReadBesideTheServiceAccount(t *testing.T) {
	for _, test := range []struct {
		name     string
		answer   func() (breaker.State, error)
		decision string
		reason   policy.Reason
	}{
		{"closed", func() (breaker.State, error) { return nil, nil }, "inject", policy.Granted},
		{"fails", func() (breaker.State, error) { return nil, errors.New("away") }, "error", webhook.LookupFailed},
		{"panics", func() (breaker.State, error) { panic("bug") }, "error", webhook.InternalError},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			reading := make(chan struct{})
			f.Cluster = afterBreaker{f.Cluster, reading}
			f.Breaker = func(context.Context) (breaker.State, error) {
				close(reading)
				return test.answer()
			}
			f.review("/pods/enabled", podRequest(t, operatorPod, nil))
			f.wantCounted("pod", test.decision, test.reason)
		})
	}
}
