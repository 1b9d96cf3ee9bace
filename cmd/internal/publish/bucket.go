package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// maxObject is the most that is read of an object, in bytes: key sets are small.
const maxObject = 1 << 20

// bucket is a part of an S3 bucket. It needs s3:GetObject and s3:PutObject on its
// three objects, and s3:ListBucket on the bucket: without it S3 does not tell an
// object that is not there from one that is forbidden.
type bucket struct {
	client       *s3.Client
	name, prefix string
}

func newBucket(ctx context.Context, name, prefix, region string) (place, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, fmt.Errorf("AWS configuration: %w", err)
	}
	if region != "" {
		cfg.Region = region
	}
	if cfg.Region == "" {
		return nil, errors.New("the bucket's region is not known: name it with --region or AWS_REGION")
	}
	// The signature covers the body already.
	cfg.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	cfg.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
	return &bucket{s3.NewFromConfig(cfg), name, prefix}, nil
}

func (b *bucket) String() string {
	if b.prefix == "" {
		return "s3://" + b.name
	}
	return "s3://" + b.name + "/" + b.prefix
}

func (b *bucket) key(name string) *string {
	if b.prefix != "" {
		name = b.prefix + "/" + name
	}
	return &name
}

func (b *bucket) read(ctx context.Context, name string) (object, error) {
	out, err := b.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &b.name, Key: b.key(name)})
	if _, ok := errors.AsType[*types.NoSuchKey](err); ok {
		return object{}, nil
	}
	if err != nil {
		return object{}, plain(err)
	}
	defer func() { _ = out.Body.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(out.Body, maxObject))
	return object{data, aws.ToString(out.ETag)}, err
}

// write is conditional: two control planes that publish at once must not lose
// each other's keys.
func (b *bucket) write(ctx context.Context, name string, was object, c content) error {
	in := &s3.PutObjectInput{
		Bucket: &b.name, Key: b.key(name), Body: bytes.NewReader(c.data),
		ContentType: &c.contentType, CacheControl: aws.String(c.cacheControl()),
	}
	if was.data == nil {
		in.IfNoneMatch = aws.String("*")
	} else {
		in.IfMatch = &was.version
	}
	_, err := b.client.PutObject(ctx, in)
	if answer, ok := errors.AsType[*smithyhttp.ResponseError](err); ok {
		switch answer.HTTPStatusCode() {
		case http.StatusPreconditionFailed, http.StatusConflict, http.StatusNotFound:
			return fmt.Errorf("%w: %w", errChanged, plain(err))
		}
	}
	return plain(err)
}

// plain is an error of AWS's in its own words, without request ids.
func plain(err error) error {
	var operation *smithy.OperationError
	var answer smithy.APIError
	if errors.As(err, &operation) && errors.As(err, &answer) {
		return fmt.Errorf("%s: %s: %s", operation.OperationName, answer.ErrorCode(), answer.ErrorMessage())
	}
	return err
}
