// Package awsclient has what every client of AWS shares: the user's credentials, and AWS's
// errors in short and with the fix.
package awsclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/logging"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// Config returns the SDK's configuration. Its errors name the fix, and the SDK logs nothing:
// its log lines would stand between the lines of the program.
func Config(ctx context.Context, options ...func(*config.LoadOptions) error) (aws.Config, error) {
	cfg, err := config.LoadDefaultConfig(ctx, append(options, config.WithLogger(logging.Nop{}))...)
	if absent, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		return cfg, fmt.Errorf("there is no AWS profile %q: correct AWS_PROFILE, or source_profile in ~/.aws/config; "+
			"aws configure list-profiles shows the profiles", absent.Profile)
	}
	if err != nil {
		return cfg, fmt.Errorf("AWS configuration: %w", err)
	}
	cfg.Credentials = provider{cfg.Credentials}
	return cfg, nil
}

// provider makes the errors of another provider name the fix.
type provider struct{ aws.CredentialsProvider }

func (p provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	credentials, err := p.CredentialsProvider.Retrieve(ctx)
	switch operation := innermost(err); {
	case err == nil, errors.Is(ctx.Err(), context.Canceled), operation != nil && operation.ServiceID == sts.ServiceID:
		return credentials, err // Short names the call and AWS's answer
	case operation != nil && operation.ServiceID == "ec2imds":
		// The SDK asks the instance last, so all other sources have none.
		return credentials, CredentialsError{}
	}
	if cause := errors.Unwrap(err); cause != nil {
		err = cause // without the cache's words
	}
	return credentials, CredentialsError{Cause: err}
}

// CredentialsError is the error of a call that was not made, because there are no credentials.
type CredentialsError struct {
	// Cause is why a source of credentials could not be used; nil: no source is configured.
	Cause error
}

func (e CredentialsError) Error() string {
	if e.Cause == nil {
		return "no AWS credentials: " + logIn()
	}
	return fmt.Sprintf("no AWS credentials: %v: %s", e.Cause, logIn())
}

// logIn returns what the user can do to get credentials.
func logIn() string {
	if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return "give the pod's service account an AWS role (for sync: sync.roleArn in the chart's values)"
	}
	if profile := os.Getenv("AWS_PROFILE"); profile != "" {
		return fmt.Sprintf("log in (aws sso login --profile %s), or set AWS_PROFILE to another profile", profile)
	}
	return "log in (aws sso login), or set AWS_PROFILE"
}

// refusedCredentials are the codes with which AWS refuses credentials, whatever the call is.
var refusedCredentials = []string{
	"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException",
}

// Short returns the operation with AWS's error code and message, without request IDs and numbers
// of attempts. The text is the same each time the same thing fails. If credentials needed
// AssumeRole and that failed, Short names AssumeRole.
func Short(err error) error {
	if lacking, ok := errors.AsType[CredentialsError](err); ok {
		return lacking
	}
	operation := innermost(err)
	if operation == nil {
		return err
	}
	var answer smithy.APIError
	var unsent *smithyhttp.RequestSendError
	switch {
	case errors.As(operation.Err, &answer):
		text := fmt.Sprintf("%s: %s: %s", operation.OperationName, answer.ErrorCode(), answer.ErrorMessage())
		if slices.Contains(refusedCredentials, answer.ErrorCode()) {
			text += ": " + logIn()
		}
		return errors.New(text)
	case errors.Is(operation.Err, context.Canceled):
		return fmt.Errorf("%s: %w", operation.OperationName, context.Canceled)
	case errors.As(operation.Err, &unsent):
		return fmt.Errorf("%s: %s", operation.OperationName, unanswered(unsent.Err))
	}
	return fmt.Errorf("%s: %w", operation.OperationName, operation.Err)
}

// unanswered returns the host that does not answer, why, and the fix. The text has no address or
// port, because these differ from one attempt to the next.
func unanswered(err error) string {
	var (
		request *url.Error
		name    *net.DNSError
		socket  *net.OpError
		distust *tls.CertificateVerificationError
	)
	host := "AWS"
	if errors.As(err, &request) {
		if address, err := url.Parse(request.URL); err == nil && address.Host != "" {
			host = address.Host
		}
		err = request.Err
	}
	fix := "check the network, and the proxy (HTTPS_PROXY)"
	switch {
	case errors.As(err, &distust):
		err, fix = distust.Err, "where a proxy inspects TLS, name a file with its CA in AWS_CA_BUNDLE"
	case errors.As(err, &name):
		err, fix = errors.New("no such host"), "check the region, the name servers, and the proxy (HTTPS_PROXY)"
	case errors.As(err, &socket):
		err = socket.Err
	}
	return fmt.Sprintf("no answer from %s: %v: %s", host, err, fix)
}

// innermost returns the innermost call in err; nil: there is none.
func innermost(err error) (operation *smithy.OperationError) {
	for errors.As(err, &operation) {
		err = operation.Err
	}
	return operation
}
