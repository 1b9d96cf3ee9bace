package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"sync"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/inject"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

const (
	// maxPooled is the largest buffer that is kept for the next request, in bytes. The buffers of a
	// few huge pods must not stay in memory.
	maxPooled = smallReview + bytes.MinRead

	reviewAPIVersion = "admission.k8s.io/v1"
	reviewKind       = "AdmissionReview"
)

// These objects decode themselves.
var _, _, _ jsonread.Readable = (*inject.Pod)(nil), (*inject.ServiceAccount)(nil), (*configMap)(nil)

// review is the received AdmissionReview. Only the fields that the handlers use are decoded. O is
// the partial object.
type review[O any] struct {
	APIVersion string
	Kind       string
	Request    *request[O]
}

// UnmarshalJSONFrom decodes an AdmissionReview.
func (v *review[O]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return jsonread.Object(jsonread.From(d), v, (*review[O]).member)
}

func (v *review[O]) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "apiVersion":
		return r.String(&v.APIVersion)
	case "kind":
		return r.String(&v.Kind)
	case "request":
		return jsonread.Pointer(r, &v.Request, (*request[O]).member)
	}
	return r.SkipValue()
}

type request[O any] struct {
	UID         string
	Kind        groupVersionKind
	SubResource string
	Name        string
	Namespace   string
	Operation   string
	DryRun      bool
	Object      O
}

func (q *request[O]) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "uid":
		return r.String(&q.UID)
	case "kind":
		return jsonread.Object(r, &q.Kind, (*groupVersionKind).member)
	case "subResource":
		return r.String(&q.SubResource)
	case "name":
		return r.String(&q.Name)
	case "namespace":
		return r.String(&q.Namespace)
	case "operation":
		return r.String(&q.Operation)
	case "dryRun":
		return r.Bool(&q.DryRun)
	case "object":
		return any(&q.Object).(jsonread.Readable).ReadJSON(r)
	}
	return r.SkipValue()
}

type groupVersionKind struct {
	Group   string
	Version string
	Kind    string
}

func (k *groupVersionKind) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "group":
		return r.String(&k.Group)
	case "version":
		return r.String(&k.Version)
	case "kind":
		return r.String(&k.Kind)
	}
	return r.SkipValue()
}

// The API server has decoded and validated the object before it sends the review. Another check for
// duplicate names would add a tenth to the decoding time.
var decodeOptions = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// httpError describes a request that is not a review for this handler. Either the webhook's
// registration is wrong, or the client is not the API server.
type httpError struct {
	status int
	text   string
}

func (e *httpError) Error() string { return e.text }

func refuse(status int, format string, args ...any) error {
	return &httpError{status, fmt.Sprintf(format, args...)}
}

// passed is a review that is not decoded. Its object is admitted unchanged.
type passed struct {
	head
	outcome outcome
}

func (p *passed) Error() string { return p.outcome.Warning }

// tooLarge returns the outcome for an object that exceeds a limit.
func tooLarge(which string) outcome {
	return outcome{
		Decision: policy.Decision{Reason: TooLarge, Warning: which + ", and the webhook reads no more than that; make it smaller"},
		notable:  true,
	}
}

// overloaded returns the outcome for an object if there is no memory for it now.
func overloaded() outcome {
	return failed(Overloaded, errors.New("no memory is free for the object"), "the webhook is overloaded; try again later")
}

// readReview decodes the review in the request's body. It accepts only the kind and the operations.
func readReview[O any](v *visit, r *http.Request, kind string, operations []string) (*request[O], error) {
	if r.Method != http.MethodPost {
		return nil, refuse(http.StatusMethodNotAllowed, "the method must be POST")
	}
	if !isJSON(r.Header.Get("Content-Type")) {
		return nil, refuse(http.StatusUnsupportedMediaType, "the content type must be application/json")
	}
	buffer := getBuffer()
	defer putBuffer(buffer)
	if err := v.readBody(buffer, r); err != nil {
		return nil, err
	}
	if err := v.admit(r.Context(), buffer.Bytes()); err != nil {
		return nil, err
	}
	var in review[O]
	if err := jsonv2.Unmarshal(buffer.Bytes(), &in, decodeOptions); err != nil {
		return nil, refuse(http.StatusBadRequest, "the body is not an AdmissionReview: %s", shorten(err.Error(), maxLoggedText))
	}
	if in.APIVersion != reviewAPIVersion || in.Kind != reviewKind || in.Request == nil || !validUID(in.Request.UID) {
		return nil, refuse(http.StatusBadRequest, "the body is not an AdmissionReview of %s with a request and a uid", reviewAPIVersion)
	}
	if err := accepts(kind, operations, in.Request.Kind, in.Request.SubResource, in.Request.Operation); err != nil {
		return nil, err
	}
	return in.Request, nil
}

func isJSON(contentType string) bool {
	if contentType == "application/json" { // the API server's value
		return true
	}
	mediaType, _, err := mime.ParseMediaType(contentType)
	return err == nil && mediaType == "application/json"
}

func validUID(uid string) bool { return 0 < len(uid) && len(uid) <= maxUID }

// readBody reads the body if its size is within the limits.
func (v *visit) readBody(buffer *bytes.Buffer, r *http.Request) error {
	defer v.read()
	if r.ContentLength > maxDrained {
		return refuse(http.StatusRequestEntityTooLarge, "the body exceeds %d bytes", maxReview)
	}
	if n := min(r.ContentLength, smallReview); n > 0 {
		buffer.Grow(int(n) + bytes.MinRead)
	}
	body := &io.LimitedReader{R: r.Body, N: smallReview}
	if _, err := buffer.ReadFrom(body); err != nil {
		return unreadable(err)
	}
	if body.N > 0 || int64(buffer.Len()) == r.ContentLength {
		return nil
	}
	h := readHead(buffer.Bytes())
	if r.ContentLength > maxReview {
		return drain(r, h, tooLarge(fmt.Sprintf("the review has more than %d bytes", maxReview)))
	}
	if !v.enlarge(r.Context()) {
		return drain(r, h, overloaded())
	}
	if n := r.ContentLength; n > 0 {
		buffer.Grow(int(n) - buffer.Len() + bytes.MinRead)
	}
	body.N = maxReview + 1 - smallReview
	if _, err := buffer.ReadFrom(body); err != nil {
		return unreadable(err)
	}
	if buffer.Len() > maxReview {
		return drain(r, h, tooLarge(fmt.Sprintf("the review has more than %d bytes", maxReview)))
	}
	return nil
}

func unreadable(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(http.StatusRequestTimeout, "the body did not arrive in time")
	}
	return refuse(http.StatusBadRequest, "the body could not be read")
}

// drain discards the rest of the body. Some clients read no answer before they have sent
// everything.
func drain(r *http.Request, h head, o outcome) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r.Body, maxDrained))
	switch {
	case err != nil:
		return unreadable(err)
	case n == maxDrained || !validUID(h.uid):
		return refuse(http.StatusRequestEntityTooLarge, "the body exceeds %d bytes", maxReview)
	}
	return &passed{h, o}
}

// admit returns an error if there is not enough memory to decode the body.
func (v *visit) admit(ctx context.Context, body []byte) error {
	weight := weigh(body)
	switch large := v.hasLarge || weight > heavyReview; {
	case large && !v.enlarge(ctx):
		return pass(body, overloaded())
	case large:
		if bound := exceeds(body); bound != "" {
			return pass(body, tooLarge(bound))
		}
	case !v.decode(ctx, weight):
		return pass(body, overloaded())
	}
	return nil
}

func pass(body []byte, o outcome) error {
	h := readHead(body)
	if !validUID(h.uid) {
		return refuse(http.StatusRequestEntityTooLarge, "%s", o.Warning)
	}
	return &passed{h, o}
}

// writeRefusal writes an answer that refuses the object of the request with this uid.
func writeRefusal(w http.ResponseWriter, uid, message string) error {
	b, err := openAnswer(nil, false, uid)
	if err != nil {
		return err
	}
	b = append(b, `,"status":{"code":422,"reason":"Invalid","message":`...)
	if b, err = jsontext.AppendQuote(b, message); err != nil {
		return fmt.Errorf("encode the message: %w", err)
	}
	sendAnswer(w, append(b, '}'))
	return nil
}

// openAnswer appends the beginning of an answer to b.
func openAnswer(b []byte, allowed bool, uid string) ([]byte, error) {
	b = append(b, `{"apiVersion":"`+reviewAPIVersion+`","kind":"`+reviewKind+`","response":{"allowed":`...)
	b = append(strconv.AppendBool(b, allowed), `,"uid":`...)
	b, err := jsontext.AppendQuote(b, uid)
	if err != nil {
		return nil, fmt.Errorf("encode the uid: %w", err)
	}
	return b, nil
}

// contentType is the header of all answers. It is shared, so it must not be changed.
var contentType = []string{"application/json"}

// sendAnswer completes the answer and sends it.
func sendAnswer(w http.ResponseWriter, b []byte) {
	b = append(b, "}}\n"...)
	w.Header()["Content-Type"] = contentType
	w.Header().Set("Content-Length", strconv.Itoa(len(b))) // without it the answer would be chunked
	_, _ = w.Write(b)                                      // an error means that the API server has disconnected
}

// writeAnswer writes an answer that admits the object of the request with this uid, and changes it
// by the operations. It writes the JSON by hand, because only the patch is variable.
func writeAnswer(w http.ResponseWriter, uid string, operations []jsonpatch.Operation, warnings ...string) error {
	patch, answer := getBuffer(), getBuffer()
	defer putBuffer(patch)
	defer putBuffer(answer)
	if len(operations) > 0 {
		text, err := inject.AppendPatch(patch.AvailableBuffer(), operations)
		if err != nil {
			return fmt.Errorf("encode the patch: %w", err)
		}
		patch.Write(text)
	}
	const envelope = 512 // bytes; for a long warning the buffer grows once more
	answer.Grow(base64.StdEncoding.EncodedLen(patch.Len()) + envelope)
	b, err := openAnswer(answer.AvailableBuffer(), true, uid)
	if err != nil {
		return err
	}
	separator := `,"warnings":[`
	for _, warning := range warnings {
		if warning == "" {
			continue
		}
		b = append(b, separator...)
		if b, err = jsontext.AppendQuote(b, shorten("ampbridge: "+warning, maxWarning)); err != nil {
			return fmt.Errorf("encode the warning: %w", err)
		}
		separator = ","
	}
	if separator == "," {
		b = append(b, ']')
	}
	if patch.Len() > 0 {
		b = append(b, `,"patchType":"JSONPatch","patch":"`...)
		b = base64.StdEncoding.AppendEncode(b, patch.Bytes())
		b = append(b, '"')
	}
	sendAnswer(w, b)
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
