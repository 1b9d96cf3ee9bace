package publish

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
)

// place is the location where an issuer is published.
type place interface {
	// read returns an object without data if it does not exist.
	read(ctx context.Context, name string) (object, error)
	// write replaces the object was. It returns [errChanged] if that has changed since it was read.
	write(ctx context.Context, name string, was object, c content) error
	String() string
}

// object is a file at a place.
type object struct {
	data []byte
	// version changes with the data; empty if the place has no versions.
	version string
}

// content is new data for an object. Readers cache public content only for a short time, because
// keys change.
type content struct {
	data        []byte
	contentType string
	public      bool
}

// cacheControl returns the header that makes every cache, including that of AWS, see a new key
// within minutes.
func (c content) cacheControl() string {
	if c.public {
		return "public, max-age=300"
	}
	return "no-cache"
}

var errChanged = errors.New("it was changed in the meantime")

// place parses --to. If the issuer is the address of a bucket, --to must be that bucket.
func (o *Options) place(ctx context.Context, who policy.Issuer) (place, error) {
	rest, isBucket := strings.CutPrefix(o.To, "s3://")
	if !isBucket {
		return o.folder(who)
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	prefix = strings.Trim(prefix, "/")
	if !bucketSyntax.MatchString(bucket) {
		return nil, usage.Errorf("--to %q: %q is not a bucket's name: write s3://BUCKET/PREFIX", o.To, bucket)
	}
	region, err := checkBucket(bucket, prefix, who)
	if err != nil {
		return nil, err
	}
	if o.Region != "" {
		region = o.Region
	}
	return newBucket(ctx, bucket, prefix, region)
}

var (
	// scheme matches what is an address and no folder. A single letter is a drive of Windows.
	scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]+:`)
	// almostS3 matches the forms in which people write a bucket without the right prefix.
	almostS3 = regexp.MustCompile(`^(?i:s3:/*|arn:[a-z-]+:s3:::)(.+)$`)
)

// folder returns the folder of --to. It refuses what was probably meant to be a bucket, because AWS
// would not find what is written into a folder of that name.
func (o *Options) folder(who policy.Issuer) (place, error) {
	if m := almostS3.FindStringSubmatch(o.To); m != nil {
		return nil, usage.Errorf("--to %q: write --to s3://%s", o.To, m[1])
	}
	if scheme.MatchString(o.To) {
		return nil, usage.Errorf("--to %q: write s3://BUCKET/PREFIX, or a folder", o.To)
	}
	bucket, path, _, err := bucketOf(who)
	if err != nil {
		return nil, err
	}
	if bucket != "" && !filepath.IsAbs(o.To) && !strings.HasPrefix(o.To, ".") {
		return nil, usage.Errorf("the issuer %s is s3://%s, and --to is the folder %s: write --to s3://%[2]s, or for a folder --to ./%[3]s",
			who, strings.TrimSuffix(bucket+"/"+path, "/"), o.To)
	}
	return folder(o.To), nil
}

// https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
var bucketSyntax = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)

// The host names of S3, with the bucket in the host or in the path.
var (
	virtualHost = regexp.MustCompile(`^(.+)\.s3[.-](?:dualstack\.)?([a-z]{2,8}(?:-[a-z]+)+-[0-9]+)\.amazonaws\.com(?:\.cn)?$`)
	pathHost    = regexp.MustCompile(`^s3[.-](?:dualstack\.)?([a-z]{2,8}(?:-[a-z]+)+-[0-9]+)\.amazonaws\.com(?:\.cn)?$`)
)

// bucketOf returns the bucket, the path and the region of an issuer that is an S3 address. bucket is
// empty for other addresses, such as those of CloudFront: they can belong to any bucket.
func bucketOf(who policy.Issuer) (bucket, path, region string, err error) {
	u, err := url.Parse(string(who))
	if err != nil {
		return "", "", "", err
	}
	path = strings.Trim(u.Path, "/")
	if m := virtualHost.FindStringSubmatch(u.Host); m != nil {
		bucket, region = m[1], m[2]
	} else if m := pathHost.FindStringSubmatch(u.Host); m != nil {
		region = m[1]
		bucket, path, _ = strings.Cut(path, "/")
	}
	return bucket, path, region, nil
}

// checkBucket compares the bucket with an issuer that is an S3 address, and returns the region in
// that address.
func checkBucket(bucket, prefix string, who policy.Issuer) (region string, err error) {
	named, path, region, err := bucketOf(who)
	if err == nil && region != "" && (named != bucket || path != prefix) {
		return "", fmt.Errorf("the issuer %s is s3://%s, and --to is s3://%s: AWS would not find what is written here",
			who, strings.TrimSuffix(named+"/"+path, "/"), strings.TrimSuffix(bucket+"/"+prefix, "/"))
	}
	return region, err
}

// worldReadable is the mode of published files, because another user serves them and everybody
// may read them.
const worldReadable fs.FileMode = 0o644

// folder is a directory that another program serves.
type folder string

func (f folder) String() string { return string(f) }

func (f folder) read(_ context.Context, name string) (object, error) {
	data, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return object{}, nil
	}
	return object{data: data}, err
}

// write replaces the file atomically, so a reader sees the old file or the new one.
func (f folder) write(_ context.Context, name string, _ object, c content) error {
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), worldReadable|0o111); err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(path), ".next-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(next.Name()) }() // removes nothing after the rename
	_, err = next.Write(c.data)
	if err := errors.Join(err, next.Chmod(worldReadable), next.Sync(), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), path)
}

func (f folder) path(name string) string { return filepath.Join(string(f), filepath.FromSlash(name)) }
