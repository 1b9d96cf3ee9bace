package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// maxText limits the text of an error, in bytes.
const maxText = 300

// failure is an error with its own text that wraps its cause.
type failure struct {
	text  string
	cause error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.cause }

// explain returns an error of the SDK with a text that is short and the same each
// time: without request ids, ports and time stamps.
func explain(err error) error {
	return &failure{shorten(describe(err)), err}
}

func describe(err error) string {
	var (
		api     smithy.APIError
		answer  *smithyhttp.ResponseError
		name    *net.DNSError
		socket  *net.OpError
		distust *tls.CertificateVerificationError
	)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("STS did not answer within %s", attempt)
	case errors.Is(err, context.Canceled):
		return "stopped"
	case errors.As(err, &api) && strings.HasPrefix(api.ErrorCode(), "ExpiredToken"):
		// AWS's own message contains the time.
		return api.ErrorCode() + ": the service account token has expired: check the token volume and the node's clock"
	case errors.As(err, &api) && api.ErrorMessage() != "" && api.ErrorCode() != "UnknownError":
		return api.ErrorCode() + ": " + api.ErrorMessage()
	case errors.As(err, &answer) && answer.HTTPStatusCode()/100 == 2:
		return "STS's answer cannot be read: " + innermost(err)
	case errors.As(err, &answer) && answer.HTTPStatusCode() != 0:
		return fmt.Sprintf("STS answered with HTTP status %d", answer.HTTPStatusCode())
	case errors.As(err, &name) && name.IsNotFound:
		return "STS cannot be reached: no such host: " + name.Name
	case errors.As(err, &name):
		return "STS cannot be reached: the name cannot be resolved: " + name.Name
	case errors.As(err, &distust):
		return "STS cannot be trusted: " + distust.Err.Error()
	case errors.As(err, &socket):
		return "STS cannot be reached: " + socket.Err.Error()
	}
	return "STS cannot be reached: " + innermost(err)
}

func innermost(err error) string {
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	return err.Error()
}

func shorten(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return text
}
