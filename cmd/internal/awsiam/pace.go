package awsiam

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go/middleware"
)

// The pace of a cluster's calls to an account's IAM when IAM throttles. All clusters share one
// token bucket per account, and none sees the calls of the others. A cluster that is not throttled
// continues at full speed, because it soon finishes and stops competing. A throttled cluster
// pauses. The pause depends on the calls that succeeded since the last throttled one. If
// none succeeded, too many clusters are trying, so the pause doubles. If some succeeded, few are
// trying, so it shrinks. The SDK's adaptive mode does not help: each client still makes a call
// every two seconds, and with 100 clusters that is ten times IAM's rate.
const (
	firstPause = 10 * time.Second
	leastPause = time.Second
	mostPause  = 60 * time.Second
	// answersToShrink is the number of answered calls that halve the pause.
	answersToShrink = 2
	// patientAttempts is the number of attempts for a call with [IAM.Patient].
	patientAttempts = 8
)

// pace is the retryer for one account's IAM.
type pace struct {
	*retry.Standard
	iam *IAM

	mu sync.Mutex
	// pause is the pause after the last throttled call; 0 if there was none.
	pause time.Duration
	// answered counts the answered calls since then.
	answered int
	// begun is true if the pass has had an answer, which a retry must not lose.
	begun bool
}

// record counts an attempt.
func (p *pace) record(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case throttles.IsErrorThrottle(err) != aws.TrueTernary:
		p.answered++
		p.begun = true
		return
	case p.pause == 0:
		p.pause = firstPause
	case p.answered == 0:
		p.pause = min(2*p.pause, mostPause)
	default:
		p.pause = p.current()
	}
	p.answered = 0
}

// current returns the pause, reduced by the calls that were answered since.
func (p *pace) current() time.Duration {
	if p.pause == 0 {
		return 0
	}
	return max(p.pause>>min(p.answered/answersToShrink, 10), leastPause)
}

// draw returns a pause with jitter, at random between a third of the current pause and all of it.
// It is 0 if AWS has throttled nothing.
func (p *pace) draw() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration((1 + 2*rand.Float64()) / 3 * float64(p.current()))
}

// begin is called before each pass.
func (p *pace) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.begun = false
}

func (p *pace) patient() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.iam.Patient && p.begun
}

// MaxAttempts implements [aws.Retryer].
func (p *pace) MaxAttempts() int {
	if p.iam.Patient {
		return patientAttempts
	}
	return p.Standard.MaxAttempts()
}

// IsErrorRetryable implements [aws.Retryer]. If a pass has had no answer yet, a
// throttled call is not retried. Nothing is lost, and the account gets a rest.
func (p *pace) IsErrorRetryable(err error) bool {
	if p.iam.Patient && throttles.IsErrorThrottle(err) == aws.TrueTernary {
		return p.patient()
	}
	return p.Standard.IsErrorRetryable(err)
}

// RetryDelay implements [aws.Retryer].
func (p *pace) RetryDelay(attempt int, err error) (time.Duration, error) {
	if p.iam.Patient && throttles.IsErrorThrottle(err) == aws.TrueTernary {
		return p.draw(), nil
	}
	return p.Standard.RetryDelay(attempt, err)
}

// observe makes a client report each attempt to the pace and to OnCall.
func (p *pace) observe(stack *middleware.Stack) error {
	record := middleware.FinalizeMiddlewareFunc(
		"Pace",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (
			middleware.FinalizeOutput, middleware.Metadata, error) {
			out, metadata, err := next.HandleFinalize(ctx, in)
			if !errors.Is(err, context.Canceled) {
				p.record(err)
			}
			return out, metadata, err
		},
	)
	return stack.Finalize.Insert(record, (*retry.Attempt)(nil).ID(), middleware.After)
}

// pace returns the pace of an account, or of another service in it.
func (i *IAM) pace(name string) *pace {
	p := i.paces[name]
	if p == nil {
		p = &pace{Standard: newStandard()}
		i.paces[name] = p
	}
	p.iam = i
	return p
}

// STS and AMP get few calls, so only throttled ones count.
func stsOf(account string) string { return account + "/sts" }
func ampOf(account string) string { return account + "/amp" }

// Inherit copies what another IAM learned about the pace of the accounts.
func (i *IAM) Inherit(from *IAM) { i.paces = from.paces }

// Pause returns how long to wait before the next call to an account that AWS throttled.
func (i *IAM) Pause(account string) time.Duration {
	return max(i.pace(account).draw(), i.pace(stsOf(account)).draw(), i.pace(ampOf(account)).draw())
}
