package inject

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"gomodules.xyz/jsonpatch/v2"
)

// patch collects the operations of a JSON patch (RFC 6902). Each value is a [json.RawMessage]. The
// paths are correct if the operations are applied in order.
type patch struct {
	operations []jsonpatch.Operation
	// values is the buffer with the encoded values.
	values []byte
	// err is the error of the first value that could not be encoded.
	err error
}

// appender is a value that appends itself as JSON. With reflection, encoding would take most of the
// time of an injection.
type appender interface{ appendJSON(b []byte) []byte }

// raw returns a value that is already encoded, for use in many pods.
func raw(text []byte) any { return json.RawMessage(text) }

func (p *patch) add(path string, value any) { p.operation("add", path, value) }

func (p *patch) replace(path string, value any) { p.operation("replace", path, value) }

func (p *patch) remove(path string) {
	p.operations = append(p.operations, jsonpatch.Operation{Operation: "remove", Path: path})
}

func (p *patch) operation(name, path string, value any) {
	if p.operations == nil {
		p.operations = make([]jsonpatch.Operation, 0, 20) // a pod needs about as many
	}
	switch v := value.(type) {
	case json.RawMessage:
	case jsontext.Value:
		value = json.RawMessage(v) // it can be large, and is used unchanged
	default:
		text, err := p.encode(value)
		if err != nil {
			if p.err == nil {
				p.err = fmt.Errorf("value of %s: %w", path, err)
			}
			return
		}
		value = text
	}
	p.operations = append(p.operations, jsonpatch.Operation{Operation: name, Path: path, Value: value})
}

// encode returns the value as JSON.
func (p *patch) encode(value any) (json.RawMessage, error) {
	if p.values == nil {
		p.values = make([]byte, 0, 4<<10) // a pod needs about as much
	}
	begin := len(p.values)
	b, err := appendValue(p.values, value)
	if err != nil {
		return nil, err
	}
	p.values = b
	return b[begin:len(b):len(b)], nil // appending to the slice does not overwrite later values
}

// appendValue appends a value as JSON. A value that cannot append itself is encoded by the standard
// library, because its omitempty has the meaning that the Kubernetes types expect.
func appendValue(b []byte, value any) ([]byte, error) {
	switch v := value.(type) {
	case appender:
		return v.appendJSON(b), nil
	case string:
		return appendString(b, v), nil
	case *string:
		return appendString(b, *v), nil
	case bool:
		return strconv.AppendBool(b, v), nil
	case *json.RawMessage:
		return append(b, *v...), nil
	case *jsontext.Value:
		return append(b, *v...), nil
	}
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return append(b, bytes.TrimSuffix(text.Bytes(), []byte{'\n'})...), nil
}

// appendString appends a quoted string. The string is valid UTF-8, because it was decoded or
// belongs to ampbridge.
func appendString(b []byte, s string) []byte {
	b, _ = jsontext.AppendQuote(b, s)
	return b
}

// appendList appends a list. item appends each item.
func appendList[T any](b []byte, items []T, item func(*T, []byte) []byte) []byte {
	b = append(b, '[')
	for i := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = item(&items[i], b)
	}
	return append(b, ']')
}

func appendStrings(b []byte, items []string) []byte {
	return appendList(b, items, func(s *string, b []byte) []byte { return appendString(b, *s) })
}

// appendTo adds items to the end of the list at path. have is the existing list; nil if the list is
// absent or null and must be created.
func appendTo[T, H any](p *patch, path string, have []H, items ...T) {
	if len(items) == 0 {
		return
	}
	if have != nil {
		end := path + "/-"
		for i := range items {
			p.add(end, any(&items[i]))
		}
		return
	}
	var err error
	list := appendList(nil, items, func(item *T, b []byte) []byte {
		with, problem := appendValue(b, any(item))
		if problem != nil {
			err = problem
			return b
		}
		return with
	})
	if err != nil {
		p.err = cmp.Or(p.err, fmt.Errorf("value of %s: %w", path, err))
		return
	}
	p.add(path, raw(list))
}

// annotate sets an annotation.
func (p *patch) annotate(have map[string]string, key, value string) {
	if have == nil {
		object := appendString(append(appendString([]byte{'{'}, key), ':'), value)
		p.add("/metadata/annotations", raw(append(object, '}')))
		return
	}
	p.add(pointer("metadata", "annotations", key), value)
}

// AppendPatch appends the operations as a JSON patch. The values must be of type [json.RawMessage],
// as in this package. [jsonpatch.Operation] can also encode itself, but that takes longer, and it
// escapes <, > and &.
func AppendPatch(b []byte, operations []jsonpatch.Operation) ([]byte, error) {
	b = append(b, '[')
	for i, o := range operations {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"op":"`+o.Operation+`","path":`...)
		var err error
		if b, err = jsontext.AppendQuote(b, o.Path); err != nil {
			return nil, fmt.Errorf("path of operation %d: %w", i, err)
		}
		switch value := o.Value.(type) {
		case nil:
		case json.RawMessage:
			b = append(append(b, `,"value":`...), value...)
		default:
			return nil, fmt.Errorf("value of operation %d (%s): it is a %T, and not JSON", i, o.Path, o.Value)
		}
		b = append(b, '}')
	}
	return append(b, ']'), nil
}

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer returns the JSON pointer (RFC 6901) of names and list indexes.
func pointer(parts ...any) string {
	b := make([]byte, 0, 64)
	for _, part := range parts {
		b = append(b, '/')
		switch part := part.(type) {
		case int:
			b = strconv.AppendInt(b, int64(part), 10)
		case string:
			b = append(b, pointerEscapes.Replace(part)...)
		default:
			panic("inject: a JSON pointer is made of strings and ints")
		}
	}
	return string(b)
}
