package publish

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/ampbridge/ampbridge/cmd/internal/awsclient"
)

// maxObject is the largest object that is read, in bytes. Key sets are small.
const maxObject = 1 << 20

// bucket is a part of an S3 bucket. It needs s3:GetObject and s3:PutObject on its
// three objects, and s3:ListBucket on the bucket. Without that S3 gives the same answer for a
// missing object as for a forbidden one.
type bucket struct {
	client       *s3.Client
	name, prefix string
}

func newBucket(ctx context.Context, name, prefix, region string) (place, error) {
	cfg, err := awsclient.Config(ctx)
	if err != nil {
		return nil, err
	}
	if region != "" {
		cfg.Region = region
	}
	if cfg.Region == "" {
		return nil, errors.New("the bucket's region is not known: name it with --region or AWS_REGION")
	}
	// The SDK need not add a checksum, because the signature covers the body.
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
		return object{}, awsclient.Short(err)
	}
	defer func() { _ = out.Body.Close() }() // read only
	data, err := io.ReadAll(io.LimitReader(out.Body, maxObject))
	return object{data, aws.ToString(out.ETag)}, err
}

// write is conditional: if two control planes publish at the same time, neither may lose
// the keys of the other.
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
			return fmt.Errorf("%w: %w", errChanged, awsclient.Short(err))
		}
	}
	return awsclient.Short(err)
}
