// Package awserror shortens the errors of AWS's SDK to what a person needs.
package awserror

import (
	"errors"
	"fmt"

	"github.com/aws/smithy-go"
)

// Short returns the operation with AWS's error code and message, without request
// IDs. An error that AWS did not answer stays as it is.
func Short(err error) error {
	var operation *smithy.OperationError
	var answer smithy.APIError
	if errors.As(err, &operation) && errors.As(err, &answer) {
		return fmt.Errorf("%s: %s: %s", operation.OperationName, answer.ErrorCode(), answer.ErrorMessage())
	}
	return err
}
