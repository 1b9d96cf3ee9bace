package webhook

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/ampbridge/ampbridge/webhook/inject"
)

const (
	// maxReview bounds a request's body, in bytes. The API server takes objects
	// of up to 3 MiB, and an update sends the old one too.
	maxReview = 7 << 20
	// maxPooled is the largest buffer that is kept for the next request, in bytes:
	// a few huge pods must not stay in memory.
	maxPooled = 256 << 10

	reviewAPIVersion = "admission.k8s.io/v1"
	reviewKind       = "AdmissionReview"
)

// review is an AdmissionReview as it comes in, of which only what the handlers
// use is decoded; O is the view of the object.
type review[O any] struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Request    *request[O] `json:"request"`
}

type request[O any] struct {
	UID         string           `json:"uid"`
	Kind        groupVersionKind `json:"kind"`
	SubResource string           `json:"subResource"`
	Name        string           `json:"name"`
	Namespace   string           `json:"namespace"`
	Operation   string           `json:"operation"`
	DryRun      bool             `json:"dryRun"`
	Object      O                `json:"object"`
}

type groupVersionKind struct {
	Group   string `json:"group"`
	Version string `json:"version"`
	Kind    string `json:"kind"`
}

// The reviews come from the API server, which has decoded and validated the
// object: checking again for duplicate names would cost a tenth of the decoding.
var decodeOptions = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// httpError is a request that is no review this handler is made for: a mistake
// in the webhook's registration, or not the API server.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &httpError{status, fmt.Sprintf(format, args...)}
}

// readReview decodes the one review in the request's body.
func readReview[O any](w http.ResponseWriter, r *http.Request) (*request[O], error) {
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "only POST")
	}
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != "application/json" {
		return nil, refuse(http.StatusUnsupportedMediaType, "the content type must be application/json")
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	if n := r.ContentLength; 0 < n && n <= maxReview {
		buffer.Grow(int(n) + bytes.MinRead)
	}
	if _, err := buffer.ReadFrom(http.MaxBytesReader(w, r.Body, maxReview)); err != nil {
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			return nil, refuse(http.StatusRequestEntityTooLarge, "the body exceeds %d bytes", maxReview)
		}
		return nil, refuse(http.StatusBadRequest, "the body could not be read")
	}
	var in review[O]
	if err := jsonv2.Unmarshal(buffer.Bytes(), &in, decodeOptions); err != nil {
		return nil, refuse(http.StatusBadRequest, "the body is no AdmissionReview: %v", err)
	}
	if in.APIVersion != reviewAPIVersion || in.Kind != reviewKind || in.Request == nil || in.Request.UID == "" {
		return nil, refuse(http.StatusBadRequest, "the body is no AdmissionReview of %s with a request and its uid", reviewAPIVersion)
	}
	return in.Request, nil
}

// writeAnswer admits the object of the request with this uid, changed by the
// operations. The answer is put together by hand: all but the patch is constant.
func writeAnswer(w http.ResponseWriter, uid string, operations []inject.Operation, warning string) error {
	patch, answer := getBuffer(), getBuffer()
	defer putBuffer(patch)
	defer putBuffer(answer)
	if len(operations) > 0 {
		// The standard library's encoder: omitempty means to it what the authors of
		// Kubernetes's types meant, and it takes half the time here.
		encoder := json.NewEncoder(patch)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(operations); err != nil {
			return fmt.Errorf("encode the patch: %w", err)
		}
	}
	const envelope = 512 // bytes; a long warning has the buffer grow once more
	answer.Grow(base64.StdEncoding.EncodedLen(patch.Len()) + envelope)
	b := append(answer.AvailableBuffer(), `{"apiVersion":"`+reviewAPIVersion+`","kind":"`+reviewKind+`","response":{"allowed":true,"uid":`...)
	b, err := jsontext.AppendQuote(b, uid)
	if err != nil {
		return fmt.Errorf("encode the uid: %w", err)
	}
	if warning != "" {
		b = append(b, `,"warnings":[`...)
		if b, err = jsontext.AppendQuote(b, "ampbridge: "+warning); err != nil {
			return fmt.Errorf("encode the warning: %w", err)
		}
		b = append(b, ']')
	}
	if patch.Len() > 0 {
		b = append(b, `,"patchType":"JSONPatch","patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, patch.Bytes())
		b = append(b, '"')
	}
	b = append(b, "}}\n"...)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b))) // or it would go out in chunks
	_, _ = w.Write(b)                                      // an error means that the API server has gone
	return nil
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func getBuffer() *bytes.Buffer { return buffers.Get().(*bytes.Buffer) }

func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= maxPooled {
		b.Reset()
		buffers.Put(b)
	}
}
