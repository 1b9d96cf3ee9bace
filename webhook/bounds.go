package webhook

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// What the webhook reads of one review. An object beyond a bound is admitted as
// it was.
const (
	// smallReview is the largest body that needs no large turn, in bytes. A pod of
	// prometheus-operator takes about 10 KB.
	smallReview = 64 << 10
	// maxReview bounds a body, in bytes. etcd takes objects of up to 1.5 MiB in a
	// shorter form, so hardly any object that can be created is larger.
	maxReview = 1 << 20
	// maxDrained bounds what is read and thrown away of a body that is too large,
	// in bytes. The API server sends up to two objects of 3 MiB.
	maxDrained = 16 << 20
	// maxItems bounds each list, and the fields of each mapping.
	maxItems = 1000
	// maxElements bounds all of them together.
	maxElements = 20_000
	// maxString bounds each string, in bytes. Kubernetes takes annotations of
	// 256 KiB in all, and Linux arguments of 128 KiB each.
	maxString = 256 << 10
	// heavyReview is the weight from which a review needs a large turn, in bytes.
	heavyReview = 512 << 10
	// maxUID bounds the review's identifier, in bytes. The API server's have 36.
	maxUID = 256
)

// weigh returns how many bytes the decoded review takes at most. It costs almost
// nothing: each element of a list or mapping has a comma or a bracket of its own.
func weigh(body []byte) int64 {
	const (
		object = 300 // the largest that a list can hold, a container
		list   = 64
		other  = 64 // a map's entry
		copies = 2  // of each string: decoded, and in the patch
	)
	return int64(object*bytes.Count(body, []byte{'{'}) + list*bytes.Count(body, []byte{'['}) +
		other*bytes.Count(body, []byte{','}) + copies*len(body))
}

// exceeds returns which bound the review breaks; empty: none. It decodes nothing.
func exceeds(body []byte) string {
	decoder := jsontext.NewDecoder(bytes.NewBuffer(body), decodeOptions)
	for elements := 0; ; elements++ {
		if elements > 2*maxElements {
			return fmt.Sprintf("the object has more than %d values", maxElements)
		}
		if decoder.PeekKind() == '"' {
			value, err := decoder.ReadValue()
			if err != nil {
				return "" // the decoder says it better
			}
			if len(value) > maxString {
				return fmt.Sprintf(
					"the string at %s has more than %d bytes",
					shorten(string(decoder.StackPointer()), maxLoggedName),
					maxString,
				)
			}
		} else if _, err := decoder.ReadToken(); err != nil {
			return "" // the end, or the decoder says it better
		}
		kind, n := decoder.StackIndex(decoder.StackDepth())
		switch {
		case kind == '[' && n > maxItems:
			return fmt.Sprintf("the list at %s has more than %d items", parent(decoder.StackPointer()), maxItems)
		case kind == '{' && n > 2*maxItems: // names and values
			return fmt.Sprintf("the mapping at %s has more than %d fields", parent(decoder.StackPointer()), maxItems)
		}
	}
}

func parent(p jsontext.Pointer) string { return shorten(string(p.Parent()), maxLoggedName) }

// head is what the beginning of a review says of it.
type head struct {
	uid, namespace, name string
}

// readHead reads the beginning of a review up to its object. The API server
// writes the fields in this order: uid, kind, resource, name, namespace, …, object.
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

// Nothing has validated the names and annotations of a new object yet: each can
// be as long as the object.
const (
	maxLoggedName = 128
	maxLoggedText = 512
	// maxLoggedError leaves a panic its stack.
	maxLoggedError = 8192
	// maxWarning is what the API server passes on of all warnings together.
	maxWarning = 4096
)

// shorten returns s with at most limit bytes, and a mark where it was cut.
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
