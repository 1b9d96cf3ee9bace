package awsiam

import (
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/smithy-go"

	"github.com/ampbridge/ampbridge/cmd/internal/awsclient"
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

// normalizeError returns the error in short. It remains known whether AWS throttled the call or
// refused it for a quota.
func normalizeError(err error) error {
	short := awsclient.Short(err)
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		return answered{
			text:      short.Error(),
			throttled: throttles.IsErrorThrottle(err) == aws.TrueTernary,
			limited:   answer.ErrorCode() == (*types.LimitExceededException)(nil).ErrorCode(),
		}
	}
	return short
}
