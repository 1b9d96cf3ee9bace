package inject

import (
	"strconv"
	"strings"
)

// Operation is one step of a JSON patch (RFC 6902). Paths are right when the
// operations of a list are applied in its order.
type Operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	From  string `json:"from,omitzero"`
	Value any    `json:"value,omitzero"`
}

// patch gathers operations.
type patch []Operation

func (p *patch) add(path string, value any) {
	*p = append(*p, Operation{Op: "add", Path: path, Value: value})
}

func (p *patch) replace(path string, value any) {
	*p = append(*p, Operation{Op: "replace", Path: path, Value: value})
}

func (p *patch) remove(path string) { *p = append(*p, Operation{Op: "remove", Path: path}) }

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

var pointerEscapes = strings.NewReplacer("~", "~0", "/", "~1")

// pointer is the JSON pointer (RFC 6901) of names and list indexes.
func pointer(parts ...any) string {
	var b strings.Builder
	for _, part := range parts {
		b.WriteByte('/')
		switch part := part.(type) {
		case int:
			b.WriteString(strconv.Itoa(part))
		case string:
			b.WriteString(pointerEscapes.Replace(part))
		default:
			panic("inject: a JSON pointer is made of strings and ints")
		}
	}
	return b.String()
}
