package awsiam

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// throttles recognizes the error codes with which AWS throttles.
var throttles = retry.IsErrorThrottles(retry.DefaultThrottles)

// answered is an error in an answer of AWS.
type answered struct {
	text      string
	throttled bool
	limited   bool
}

func (e answered) Error() string { return e.text }

// Throttled reports whether AWS refused a call because there were too many.
func Throttled(err error) bool {
	var e answered
	return errors.As(err, &e) && e.throttled
}

// denied reports whether AWS refused the call because the credentials lack the permission.
func denied(err error) bool {
	var e smithy.APIError
	return errors.As(err, &e) && e.ErrorCode() == "AccessDenied"
}

// Limited reports whether IAM refused to create something because a quota is used up.
func Limited(err error) bool {
	var e answered
	return errors.As(err, &e) && e.limited
}

// normalizeError returns an error with the same text each time the same thing fails. It
// removes request ids and numbers of attempts, because with them every error would
// look new. It names the innermost operation: if credentials needed AssumeRole and
// that failed, it names AssumeRole.
func normalizeError(err error) error {
	var operation *smithy.OperationError
	if !errors.As(err, &operation) {
		return err
	}
	for inner := operation; errors.As(inner.Err, &inner); {
		operation = inner
	}
	var answer smithy.APIError
	var unsent *smithyhttp.RequestSendError
	switch {
	case operation.ServiceID == "ec2imds":
		// The last source in the SDK's chain fails after all others have failed.
		return errors.New(
			"no AWS credentials: there are none in the environment, the shared files or a web identity, and no instance " +
				"metadata service answers",
		)
	case errors.As(operation.Err, &answer):
		return answered{
			text:      fmt.Sprintf("%s: %s: %s", operation.OperationName, answer.ErrorCode(), answer.ErrorMessage()),
			throttled: throttles.IsErrorThrottle(operation.Err) == aws.TrueTernary,
			limited:   answer.ErrorCode() == (*types.LimitExceededException)(nil).ErrorCode(),
		}
	case errors.Is(operation.Err, context.Canceled):
		return fmt.Errorf("%s: %w", operation.OperationName, context.Canceled)
	case errors.As(operation.Err, &unsent):
		return fmt.Errorf("%s: no answer: %w", operation.OperationName, unsent.Err)
	}
	return fmt.Errorf("%s: %w", operation.OperationName, operation.Err)
}
