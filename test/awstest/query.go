package awstest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// The query protocol of IAM and STS: forms in, XML out.

// apiError is an error as AWS answers it.
type apiError struct {
	Status  int
	Code    string
	Message string
}

func (e *apiError) Error() string { return e.Code + ": " + e.Message }

func apiErr(status int, code, message string) error { return &apiError{status, code, message} }

func apiErrf(status int, code, format string, args ...any) error {
	return apiErr(status, code, fmt.Sprintf(format, args...))
}

// asAPIError returns err itself, or an internal failure if the double has an error.
func asAPIError(err error) *apiError {
	if e, ok := errors.AsType[*apiError](err); ok {
		return e
	}
	return &apiError{http.StatusInternalServerError, "InternalFailure", err.Error()}
}

// invalid returns the error for a parameter that breaks its constraint.
func invalid(value, parameter, constraint string) error {
	return apiErrf(400, "ValidationError",
		"1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: %s", value, parameter, constraint)
}

// form holds the parameters of a call.
type form struct{ url.Values }

// list reads Name.member.1, Name.member.2, …
func (f form) list(name string) []string {
	var items []string
	for i := 1; ; i++ {
		key := fmt.Sprintf("%s.member.%d", name, i)
		if !f.Has(key) {
			return items
		}
		items = append(items, f.Get(key))
	}
}

// tags reads Tags.member.N.Key and .Value.
func (f form) tags() []tag {
	var tags []tag
	for i := 1; ; i++ {
		prefix := fmt.Sprintf("Tags.member.%d.", i)
		if !f.Has(prefix + "Key") {
			return tags
		}
		tags = append(tags, tag{f.Get(prefix + "Key"), f.Get(prefix + "Value")})
	}
}

// number reads an integer between lowest and highest. missing is the value of an
// absent parameter.
func (f form) number(name string, missing, lowest, highest int) (int, error) {
	text := f.Get(name)
	if text == "" {
		return missing, nil
	}
	n, err := strconv.Atoi(text)
	parameter := strings.ToLower(name[:1]) + name[1:]
	switch {
	case err != nil:
		return 0, apiErrf(400, "MalformedInput", "%s is not an integer", name)
	case n < lowest:
		return 0, invalid(text, parameter, fmt.Sprintf("Member must have value greater than or equal to %d", lowest))
	case n > highest:
		return 0, invalid(text, parameter, fmt.Sprintf("Member must have value less than or equal to %d", highest))
	}
	return n, nil
}

// page is the part of a list that a call requests with Marker and MaxItems.
type page struct {
	IsTruncated bool
	Marker      string `xml:",omitempty"`
}

// pageOf returns an answer with the page of the list that the call requests, as the element of that name.
func pageOf[T any](q *queryCall, name string, all []T) (any, error) {
	type list struct {
		XMLName xml.Name
		Members []T `xml:"member"`
	}
	items, end, err := paginate(q.form, all)
	return struct {
		List list
		page
	}{list{xml.Name{Local: name}, items}, end}, err
}

func paginate[T any](f form, items []T) ([]T, page, error) {
	size, err := f.number("MaxItems", 100, 1, 1000)
	if err != nil {
		return nil, page{}, err
	}
	start := 0
	if marker := f.Get("Marker"); marker != "" {
		decoded, err := base64.RawURLEncoding.DecodeString(marker)
		if err == nil {
			start, err = strconv.Atoi(string(decoded))
		}
		if err != nil || start < 0 {
			return nil, page{}, apiErr(400, "ValidationError", "Invalid Marker.")
		}
	}
	start = min(start, len(items))
	end := min(start+size, len(items))
	if end == len(items) {
		return items[start:], page{}, nil
	}
	return items[start:end], page{true, base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(end)))}, nil
}

// namespaces are the XML namespaces of the answers, by service.
var namespaces = map[string]string{
	"iam": "https://iam.amazonaws.com/doc/2010-05-08/",
	"sts": "https://sts.amazonaws.com/doc/2011-06-15/",
}

type responseMetadata struct {
	RequestID string `xml:"RequestId"`
}

// writeResult writes the answer of a call. A nil result is left out.
func writeResult(w http.ResponseWriter, service, action string, result any) error {
	w.Header().Set("Content-Type", "text/xml")
	e := xml.NewEncoder(w)
	response := xml.StartElement{
		Name: xml.Name{Local: action + "Response"},
		Attr: []xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: namespaces[service]}},
	}
	if err := e.EncodeToken(response); err != nil {
		return err
	}
	if result != nil {
		if err := e.EncodeElement(result, xml.StartElement{Name: xml.Name{Local: action + "Result"}}); err != nil {
			return err
		}
	}
	metadata := responseMetadata{randomUUID()}
	if err := e.EncodeElement(metadata, xml.StartElement{Name: xml.Name{Local: "ResponseMetadata"}}); err != nil {
		return err
	}
	if err := e.EncodeToken(response.End()); err != nil {
		return err
	}
	return e.Close()
}

// writeError writes the answer of a failed call.
func writeError(w http.ResponseWriter, service string, err *apiError) error {
	type detail struct{ Type, Code, Message string }
	answer := struct {
		XMLName   xml.Name
		Error     detail
		RequestID string `xml:"RequestId"`
	}{
		XMLName:   xml.Name{Space: namespaces[service], Local: "ErrorResponse"},
		Error:     detail{"Sender", err.Code, err.Message},
		RequestID: randomUUID(),
	}
	if err.Status >= http.StatusInternalServerError {
		answer.Error.Type = "Receiver"
	}
	w.Header().Set("Content-Type", "text/xml")
	w.WriteHeader(err.Status)
	return xml.NewEncoder(w).Encode(answer)
}

// iso8601 is a time in the format of IAM and STS.
type iso8601 time.Time

// MarshalText implements encoding.TextMarshaler.
func (t iso8601) MarshalText() ([]byte, error) {
	return []byte(time.Time(t).UTC().Format("2006-01-02T15:04:05Z")), nil
}

// encodedPolicy returns a policy as IAM returns it: percent-encoded (RFC 3986).
func encodedPolicy(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

// packedSize returns the share of its space, in percent, that a session policy uses.
func packedSize(text string) int { return min(100, 1+len(text)*100/2048) }

func sha256Sum(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}
