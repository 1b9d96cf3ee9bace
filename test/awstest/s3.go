package awstest

import (
	"crypto/md5" // S3's entity tags are MD5
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// The part of S3 that publishing an issuer needs: objects of a bucket are read and
// written, with or without conditions, with path-style addressing.

// Bucket is an S3 bucket. As an [http.Handler] it serves its content to everybody. A test passes it
// to [Cloud.RegisterIssuer] if the bucket is the issuer's host.
type Bucket struct {
	Name   string
	Region string

	account *Account

	mu      sync.Mutex
	objects map[string]Object
	writes  []string
}

// Object is the content of a bucket under a key.
type Object struct {
	Data                      []byte
	ContentType, CacheControl string
	Modified                  time.Time
}

func (o Object) tag() string {
	sum := md5.Sum(o.Data)
	return `"` + hex.EncodeToString(sum[:]) + `"`
}

// CreateBucket creates a bucket. Names are unique among all accounts, so the test must
// choose a new one.
func (a *Account) CreateBucket(region, name string) *Bucket {
	a.cloud.mu.Lock()
	defer a.cloud.mu.Unlock()
	b := &Bucket{Name: name, Region: region, account: a, objects: map[string]Object{}}
	a.cloud.buckets[name] = b
	return b
}

// Object returns the content of the bucket under the key.
func (b *Bucket) Object(key string) (o Object, found bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o, found = b.objects[key]
	return o, found
}

// Put writes an object without a call of the API.
func (b *Bucket) Put(key string, o Object) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[key] = o
}

// Writes returns the keys that were written through the API, in order.
func (b *Bucket) Writes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.writes...)
}

// Public serves the objects below a prefix to everybody, like a bucket with a
// policy that allows public reads.
func (b *Bucket) Public(prefix string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key := strings.Trim(prefix+r.URL.Path, "/")
		if o, found := b.Object(key); found && r.Method == http.MethodGet {
			o.serve(w)
			return
		}
		http.Error(w, "AccessDenied", http.StatusForbidden)
	})
}

func (o Object) serve(w http.ResponseWriter) {
	for name, value := range map[string]string{"Content-Type": o.ContentType, "Cache-Control": o.CacheControl, "ETag": o.tag()} {
		if value != "" {
			w.Header().Set(name, value)
		}
	}
	w.Header().Set("Last-Modified", o.Modified.UTC().Format(http.TimeFormat))
	_, _ = w.Write(o.Data) // an error means that the client disconnected
}

// isS3 reports whether a call is signed for S3.
func isS3(r *http.Request) bool {
	s, ok := parseSignature(r.Header.Get("Authorization"))
	return ok && s.service == "s3"
}

func (c *Cloud) serveS3(w http.ResponseWriter, r *http.Request, body []byte) {
	action := map[string]string{http.MethodGet: "GetObject", http.MethodPut: "PutObject"}[r.Method]
	record := Call{Service: "s3", Action: action, Account: c.accountOf(r, ""), Status: http.StatusOK}
	cut, object, err := c.answerS3(r, body, &record)
	if err != nil {
		failure := asAPIError(err)
		record.Code, record.Message, record.Status = failure.Code, failure.Message, failure.Status
	}
	if cut {
		record.Status = 0
	}
	record.Time = c.Now()
	c.recordCall(record)
	switch {
	case cut:
		reset(w)
	case err != nil:
		writeS3Error(w, asAPIError(err))
	case action == "PutObject":
		w.Header().Set("ETag", object.tag())
	default:
		object.serve(w)
	}
}

func (c *Cloud) answerS3(r *http.Request, body []byte, record *Call) (cut bool, o Object, err error) {
	cut, err = c.strike(r.Context(), c.faults.find("s3:"+record.Action, record.Account))
	switch {
	case errors.Is(err, errReset):
		return true, o, err
	case err != nil:
		return false, o, err
	case record.Action == "":
		return false, o, apiErrf(http.StatusNotImplemented, "NotImplemented", "%s is not here", r.Method)
	}
	caller, signature, failure, message := c.authenticate(r, body, "s3")
	if caller == nil {
		return cut, o, s3AuthError(failure, message)
	}
	record.Principal = caller.arn()
	name, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buckets[name]
	if b == nil {
		return cut, o, apiErr(http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	}
	if b.Region != signature.region {
		return cut, o, apiErrf(
			http.StatusBadRequest,
			"AuthorizationHeaderMalformed",
			"the region '%s' is wrong; expecting '%s'",
			signature.region,
			b.Region,
		)
	}
	may := func(action, resource string) bool {
		context := c.contextOf(caller)
		context.set("aws:RequestedRegion", signature.region)
		ok, _ := c.permissionsOf(caller).decide(access{action, "arn:" + b.account.Partition + ":s3:::" + resource, context})
		return ok && caller.account == b.account
	}
	if !may("s3:"+record.Action, name+"/"+key) {
		return cut, o, errS3Denied
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	found, exists := b.objects[key]
	if record.Action == "GetObject" {
		switch {
		case exists:
			return cut, found, nil
		case !may("s3:ListBucket", name):
			// A caller without the right to list must not learn which objects exist.
			return cut, o, errS3Denied
		}
		return cut, o, apiErr(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	}
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match != "" && !exists:
		return cut, o, apiErr(http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
	case match != "" && match != found.tag(), none == "*" && exists:
		return cut, o, apiErr(
			http.StatusPreconditionFailed,
			"PreconditionFailed",
			"At least one of the pre-conditions you specified did not hold",
		)
	}
	o = Object{Data: body, ContentType: r.Header.Get("Content-Type"), CacheControl: r.Header.Get("Cache-Control"), Modified: c.now()}
	b.objects[key] = o
	b.writes = append(b.writes, key)
	return cut, o, nil
}

var errS3Denied = apiErr(http.StatusForbidden, "AccessDenied", "Access Denied")

func s3AuthError(failure authFailure, message string) error {
	switch failure {
	case unknownKey:
		return apiErr(http.StatusForbidden, "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")
	case expiredToken:
		return apiErr(http.StatusBadRequest, "ExpiredToken", "The provided token has expired.")
	}
	return apiErr(http.StatusForbidden, "SignatureDoesNotMatch", message)
}

func writeS3Error(w http.ResponseWriter, e *apiError) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(e.Status)
	text, err := xml.Marshal(struct {
		XMLName       xml.Name `xml:"Error"`
		Code, Message string
	}{Code: e.Code, Message: e.Message})
	if err != nil {
		panic(err) // cannot happen: strings always marshal
	}
	_, _ = fmt.Fprintf(w, "%s%s", xml.Header, text) // an error means that the client disconnected
}
