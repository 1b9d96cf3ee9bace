package webhook

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Limits on what the webhook reads of one review. An object that exceeds a limit is admitted
// unchanged.
const (
	// smallReview is the largest body that needs no large turn, in bytes. A pod of
	// prometheus-operator has about 10 KB.
	smallReview = 64 << 10
	// maxReview limits the body, in bytes. etcd accepts objects of up to 1.5 MiB, in a more compact
	// encoding, so few objects that can be created are larger.
	maxReview = 1 << 20
	// maxDrained limits how much of a body that is too large is read and discarded, in bytes. The
	// API server sends up to two objects of 3 MiB.
	maxDrained = 16 << 20
	// maxItems limits the items of each list and the fields of each mapping.
	maxItems = 1000
	// maxElements limits the items and fields of all lists and mappings together.
	maxElements = 20_000
	// maxString limits each string, in bytes. Kubernetes accepts annotations of 256 KiB in total,
	// and Linux accepts arguments of 128 KiB each.
	maxString = 256 << 10
	// heavyReview is the estimated size above which a review needs a large turn, in bytes. See
	// weigh.
	heavyReview = 512 << 10
	// maxUID limits the review's uid, in bytes. The API server's uids have 36.
	maxUID = 256
)

// weigh returns an upper estimate of the bytes that the decoded review takes. It is cheap: it only
// counts commas and brackets, because each element of a list or mapping has one.
func weigh(body []byte) int64 {
	const (
		object = 300 // a container, the largest item of a list
		list   = 64
		other  = 64 // an entry of a map
		copies = 2  // of each string: the decoded one and the one in the patch
	)
	return int64(object*bytes.Count(body, []byte{'{'}) + list*bytes.Count(body, []byte{'['}) +
		other*bytes.Count(body, []byte{','}) + copies*len(body))
}

// exceeds returns a description of the limit that the review exceeds, or "" if there is none. It
// decodes nothing.
func exceeds(body []byte) string {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(body), decodeOptions)
	for elements := 0; ; elements++ {
		if elements > 2*maxElements {
			return fmt.Sprintf("the object has more than %d values", maxElements)
		}
		if decoder.PeekKind() == '"' {
			value, err := decoder.ReadValue()
			if err != nil {
				return "" // the decoder reports a better error later
			}
			if len(value) > maxString {
				return fmt.Sprintf(
					"the string at %s has more than %d bytes",
					shorten(string(decoder.StackPointer()), maxLoggedName),
					maxString,
				)
			}
		} else if _, err := decoder.ReadToken(); err != nil {
			return "" // the end, or an error that the decoder reports better later
		}
		kind, n := decoder.StackIndex(decoder.StackDepth())
		switch {
		case kind == '[' && n > maxItems:
			return fmt.Sprintf("the list at %s has more than %d items", parent(decoder.StackPointer()), maxItems)
		case kind == '{' && n > 2*maxItems: // the index counts names and values
			return fmt.Sprintf("the mapping at %s has more than %d fields", parent(decoder.StackPointer()), maxItems)
		}
	}
}

func parent(p jsontext.Pointer) string { return shorten(string(p.Parent()), maxLoggedName) }

// head holds the fields at the beginning of a review.
type head struct {
	uid, namespace, name string
}

// readHead reads a review up to its object. The API server writes the fields in this order: uid,
// kind, resource, name, namespace, …, object.
func readHead(body []byte) (h head) {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(body), decodeOptions)
	if t, err := decoder.ReadToken(); err != nil || t.Kind() != '{' {
		return h
	}
	inRequest := false
	for decoder.PeekKind() == '"' {
		name, err := decoder.ReadToken()
		if err != nil {
			return h
		}
		field := name.String()
		if !inRequest && field == "request" && decoder.PeekKind() == '{' {
			_, err = decoder.ReadToken()
			inRequest = true
		} else if to := h.field(field); inRequest && to != nil && decoder.PeekKind() == '"' {
			var value jsontext.Token
			if value, err = decoder.ReadToken(); err == nil {
				*to = value.String()
			}
		} else if inRequest && field == "object" {
			return h
		} else {
			err = decoder.SkipValue()
		}
		if err != nil {
			return h
		}
	}
	return h
}

func (h *head) field(name string) *string {
	switch name {
	case "uid":
		return &h.uid
	case "namespace":
		return &h.namespace
	case "name":
		return &h.name
	}
	return nil
}

// Limits on what logs and warnings repeat of a new object, in bytes. The API server has not
// validated its names and annotations yet, so each can be as long as the object.
const (
	maxLoggedName = 128
	maxLoggedText = 512
	// maxLoggedError is large enough for the stack of a panic.
	maxLoggedError = 8192
	// maxWarning is the most that the API server passes on of all warnings together.
	maxWarning = 4096
)

// shorten returns at most limit bytes of s, with a mark at the end if s was cut.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const mark = "…"
	cut := limit - len(mark)
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + mark
}
