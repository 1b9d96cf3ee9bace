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

// The pace at which a cluster calls an account's IAM that throttles. All clusters of
// an account share one token bucket, and none sees the others. A cluster that is let
// through goes on at full speed, since one that finishes no longer competes. A cluster
// that is throttled pauses. The pause adapts to how many calls were answered since
// the last throttled one: none means that too many clusters try, so it doubles; some
// mean that few do, so it shrinks. The SDK's adaptive mode does not go below a call
// in two seconds for each client: of 100 clusters, that is ten times what IAM takes.
const (
	firstPause = 10 * time.Second
	leastPause = time.Second
	mostPause  = 60 * time.Second
	// answersToShrink is how many answered calls halve the pause.
	answersToShrink = 2
	// patientAttempts is how often [IAM.Patient] tries a call.
	patientAttempts = 8
)

// pace is the retryer of one account's IAM.
type pace struct {
	*retry.Standard
	iam *IAM

	mu sync.Mutex
	// pause is that after the last throttled call; 0: there was none.
	pause time.Duration
	// answered counts the calls since then.
	answered int
	// begun: the pass has had an answer, which a retry does not lose.
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

// current returns the pause, shrunk by the calls that were answered since.
func (p *pace) current() time.Duration {
	if p.pause == 0 {
		return 0
	}
	return max(p.pause>>min(p.answered/answersToShrink, 10), leastPause)
}

// draw returns a pause with jitter: at random between a third and the whole of the
// present one. It is 0 where AWS throttled nothing.
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

// IsErrorRetryable implements [aws.Retryer]. Where a pass has had no answer yet, a
// throttled call is not tried again: the account is left alone, and nothing is lost.
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

// observe makes a client report each attempt to the pace, and to OnCall.
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

// pace returns that of an account, or of one of its other services.
func (i *IAM) pace(name string) *pace {
	p := i.paces[name]
	if p == nil {
		p = &pace{Standard: newStandard()}
		i.paces[name] = p
	}
	p.iam = i
	return p
}

// Of STS and AMP, whose calls are few, only the throttled ones count.
func stsOf(account string) string { return account + "/sts" }
func ampOf(account string) string { return account + "/amp" }

// Inherit takes over what another IAM learned of the accounts' pace.
func (i *IAM) Inherit(from *IAM) { i.paces = from.paces }

// Pause returns how long to leave alone an account that AWS throttled.
func (i *IAM) Pause(account string) time.Duration {
	return max(i.pace(account).draw(), i.pace(stsOf(account)).draw(), i.pace(ampOf(account)).draw())
}
