package awstest_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// A bucket as S3's own client sees it: who may do what, and on what condition.
func TestBucket(t *testing.T) {
	f := newFixture(t)
	bucket := f.account.CreateBucket(region, "issuer")
	client := func(c awstest.Credentials, region string) *s3.Client {
		return s3.NewFromConfig(f.cloud.Config(c, region), func(o *s3.Options) {
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.Retryer = aws.NopRetryer{}
		})
	}
	user := func(name, action string) awstest.Credentials {
		t.Helper()
		c, err := f.account.PutUser(
			name,
			`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["`+action+`"],"Resource":["arn:aws:s3:::issuer/*",`+
				`"arn:aws:s3:::issuer"]}}`,
		)
		testkit.Must(t, err)
		return c
	}
	admin := client(f.account.AdminCredentials(), region)
	put := func(c *s3.Client, key, text, match, none string) error {
		in := &s3.PutObjectInput{Bucket: aws.String("issuer"), Key: &key, Body: strings.NewReader(text), ContentType: aws.String("text/x")}
		if match != "" {
			in.IfMatch = &match
		}
		if none != "" {
			in.IfNoneMatch = &none
		}
		_, err := c.PutObject(t.Context(), in)
		return err
	}
	get := func(c *s3.Client, key string) (string, string, error) {
		out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String("issuer"), Key: &key})
		if err != nil {
			return "", "", err
		}
		text, err := io.ReadAll(out.Body)
		return string(text), aws.ToString(out.ETag), err
	}
	testkit.Must(t, put(admin, "a b/ü", "one", "", "*"))
	text, tag, err := get(admin, "a b/ü")
	if err != nil || text != "one" {
		t.Fatal(text, err)
	}
	forged := f.account.AdminCredentials()
	forged.SecretAccessKey += "x"
	for name, c := range map[string]struct {
		err  error
		code string
	}{
		"made again":             {put(admin, "a b/ü", "two", "", "*"), "PreconditionFailed"},
		"another's version":      {put(admin, "a b/ü", "two", `"0"`, ""), "PreconditionFailed"},
		"the version of nothing": {put(admin, "none", "two", tag, ""), "NoSuchKey"},
		"may only read":          {put(client(user("reader", "s3:GetObject"), region), "a b/ü", "two", "", ""), "AccessDenied"},
		"another region": {put(client(f.account.AdminCredentials(), "eu-west-2"), "a b/ü", "two", "", ""),
			"AuthorizationHeaderMalformed"},
		"another account": {put(client(f.cloud.Account("444455556666").AdminCredentials(), region), "a b/ü", "two", "", ""),
			"AccessDenied"},
		"a forged signature":       {put(client(forged, region), "a b/ü", "two", "", ""), "SignatureDoesNotMatch"},
		"nothing, and may list":    {second(get(admin, "none")), "NoSuchKey"},
		"nothing, and may not":     {second(get(client(user("reader", "s3:GetObject"), region), "none")), "AccessDenied"},
		"something, and may write": {second(get(client(user("writer", "s3:PutObject"), region), "a b/ü")), "AccessDenied"},
	} {
		var answer smithy.APIError
		if !errors.As(c.err, &answer) || answer.ErrorCode() != c.code {
			t.Errorf("%s: %v, want %s", name, c.err, c.code)
		}
	}
	if err := put(admin, "a b/ü", "two", tag, ""); err != nil {
		t.Error(err)
	}
	if o, _ := bucket.Object("a b/ü"); string(o.Data) != "two" || o.ContentType != "text/x" || len(bucket.Writes()) != 2 {
		t.Errorf("%+v after %v", o, bucket.Writes())
	}
	for path, status := range map[string]int{"/ü": http.StatusOK, "/none": http.StatusForbidden} {
		w := httptest.NewRecorder()
		bucket.Public("a b").ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != status {
			t.Errorf("%s: %d, want %d", path, w.Code, status)
		}
	}
}

func second(_, _ string, err error) error { return err }
