package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"gomodules.xyz/jsonpatch/v2"
)

// patch gathers the operations of a JSON patch (RFC 6902). The value of each is a
// [json.RawMessage]. Paths are right when the operations are applied in their order.
type patch struct {
	operations []jsonpatch.Operation
	// values holds the text of the operations' values.
	values  bytes.Buffer
	encoder *json.Encoder
	// err is the first value that could not be encoded.
	err error
}

func (p *patch) add(path string, value any) { p.operation("add", path, value) }

func (p *patch) replace(path string, value any) { p.operation("replace", path, value) }

func (p *patch) remove(path string) {
	p.operations = append(p.operations, jsonpatch.Operation{Operation: "remove", Path: path})
}

func (p *patch) operation(name, path string, value any) {
	text, err := p.encode(value)
	if err != nil {
		if p.err == nil {
			p.err = fmt.Errorf("value of %s: %w", path, err)
		}
		return
	}
	p.operations = append(p.operations, jsonpatch.Operation{Operation: name, Path: path, Value: text})
}

// encode returns the value as JSON. It uses the standard library's encoder: omitempty
// means to it what the authors of Kubernetes's types meant, and it takes half the time
// here. A value that is JSON already is used as it is: it can be large.
func (p *patch) encode(value any) (json.RawMessage, error) {
	if text, is := value.(jsontext.Value); is {
		return json.RawMessage(text), nil
	}
	if p.encoder == nil {
		p.operations = slices.Grow(p.operations, 20) // and about as many
		p.encoder = json.NewEncoder(&p.values)
		p.encoder.SetEscapeHTML(false)
		p.values.Grow(4 << 10) // a pod takes about this
	}
	begin := p.values.Len()
	if err := p.encoder.Encode(value); err != nil {
		return nil, err
	}
	end := p.values.Len() - 1                   // without the line feed
	return p.values.Bytes()[begin:end:end], nil // a buffer that grows leaves these bytes alone
}

// appendTo adds items at the end of the list at path, of which there is the
// slice have: nil where the list is absent (or null), and has to be made.
func appendTo[T, H any](p *patch, path string, have []H, items ...T) {
	switch {
	case len(items) == 0:
	case have == nil:
		p.add(path, items)
	default:
		for _, item := range items {
			p.add(path+"/-", item)
		}
	}
}

// annotate sets a key of an annotations map.
func (p *patch) annotate(have map[string]string, key, value string) {
	if have == nil {
		p.add("/metadata/annotations", map[string]string{key: value})
		return
	}
	p.add(pointer("metadata", "annotations", key), value)
}

// AppendPatch appends the operations as a JSON patch. The values must be of type
// [json.RawMessage], as those of this package are. [jsonpatch.Operation] can encode
// itself too, but takes longer, and escapes <, > and &.
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

// pointer is the JSON pointer (RFC 6901) of names and list indexes.
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
