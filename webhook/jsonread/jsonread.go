// Package jsonread decodes JSON objects member by member, without reflection. It uses the token
// reader of github.com/go-json-experiment/json.
//
// The result equals that of encoding/json as Kubernetes uses it. Names are case-sensitive, and null
// leaves a value unchanged. If several members have the same name, objects are merged, and of other
// values the last one applies. The decoder's own options determine whether it accepts such names.
package jsonread

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Reader reads the members of one object.
type Reader struct {
	*jsontext.Decoder
	// text holds all strings that were read, one after the other, because one allocation for each
	// string would be slower.
	text strings.Builder
	// quoted is a buffer for quoted names, and pairs is a buffer for the entries of a mapping.
	quoted []byte
	pairs  [][2]string
}

// Readable is a value that can decode itself.
type Readable interface{ ReadJSON(r *Reader) error }

// From returns a reader of the decoder's next value.
func From(d *jsontext.Decoder) *Reader { return &Reader{Decoder: d} }

// Object reads an object and calls member for each of its members. member must read the value, and
// name is valid only until then.
func Object[T any](r *Reader, to *T, member func(to *T, r *Reader, name []byte) error) error {
	if null, err := r.open('{', reflect.TypeFor[T]()); null || err != nil {
		return err
	}
	for r.PeekKind() == '"' {
		name, err := r.ReadValue()
		if err != nil {
			return err
		}
		if err := member(to, r, unquoted(name)); err != nil {
			return err
		}
	}
	_, err := r.ReadToken() // the end, or an error
	return err
}

// Optional reads an object that is a pointer in Kubernetes. null sets it to the zero value.
func Optional[T any](r *Reader, to *T, member func(to *T, r *Reader, name []byte) error) error {
	if r.PeekKind() == 'n' {
		*to = *new(T)
	}
	return Object(r, to, member)
}

// Pointer reads an object into a pointer. null sets the pointer to nil.
func Pointer[T any](r *Reader, to **T, member func(to *T, r *Reader, name []byte) error) error {
	if r.PeekKind() == 'n' {
		*to = nil
		return r.SkipValue()
	}
	if *to == nil {
		*to = new(T)
	}
	return Object(r, *to, member)
}

// Objects reads a list of objects, usually with up to n items.
func Objects[T any](r *Reader, to *[]T, n int, member func(to *T, r *Reader, name []byte) error) error {
	return list(r, to, n, member, nil)
}

// Strings reads a list of strings, usually with up to n items.
func (r *Reader) Strings(to *[]string, n int) error { return list(r, to, n, nil, (*Reader).String) }

// Integers reads a list of integers.
func (r *Reader) Integers(to *[]int64) error { return list(r, to, 4, nil, (*Reader).Integer) }

// Values reads a list of any values.
func (r *Reader) Values(to *[]jsontext.Value) error { return list(r, to, 4, nil, (*Reader).Value) }

// list reads a list of objects with member, or of other items with other. A closure for each list
// would cost an allocation.
func list[T any](
	r *Reader, to *[]T, n int, member func(to *T, r *Reader, name []byte) error, other func(*Reader, *T) error,
) error {
	if r.PeekKind() == 'n' {
		*to = nil
		return r.SkipValue()
	}
	if _, err := r.open('[', reflect.TypeFor[[]T]()); err != nil {
		return err
	}
	items := (*to)[:0]
	for r.PeekKind() != ']' {
		switch {
		case len(items) < cap(items):
			items = items[:len(items)+1] // zero, or the item from an earlier list of the same name
		default:
			items = slices.Grow(items, max(n, 1))[:len(items)+1]
			n = len(items) // the next allocation doubles the list
		}
		var err error
		if item := &items[len(items)-1]; member != nil {
			err = Object(r, item, member)
		} else {
			err = other(r, item)
		}
		if err != nil {
			return err
		}
	}
	if len(items) == 0 {
		items = []T{}
	}
	*to = items
	_, err := r.ReadToken()
	return err
}

// open reads the beginning of an object or a list, and reports whether the value is null instead.
func (r *Reader) open(kind jsontext.Kind, wanted reflect.Type) (null bool, err error) {
	switch r.PeekKind() {
	case kind:
		_, err = r.ReadToken()
		return false, err
	case 'n':
		return true, r.SkipValue()
	}
	return false, r.mismatch(wanted)
}

// StringMap reads an object with string values.
func (r *Reader) StringMap(to *map[string]string) error {
	if r.PeekKind() == 'n' {
		*to = nil
		return r.SkipValue()
	}
	if _, err := r.open('{', reflect.TypeFor[map[string]string]()); err != nil {
		return err
	}
	if r.pairs == nil {
		r.pairs = make([][2]string, 0, 16) // a pod has about as many labels
	}
	pairs := r.pairs[:0]
	for r.PeekKind() == '"' {
		var pair [2]string
		text, err := r.ReadValue()
		if err != nil {
			return err
		}
		pair[0] = r.Keep(unquoted(text))
		switch r.PeekKind() {
		case '"':
			if text, err = r.ReadValue(); err != nil {
				return err
			}
			pair[1] = r.Keep(unquoted(text))
		case 'n':
			if err := r.SkipValue(); err != nil {
				return err
			}
		default:
			return r.mismatch(reflect.TypeFor[string]())
		}
		pairs = append(pairs, pair)
	}
	if r.pairs = pairs; *to == nil {
		*to = make(map[string]string, len(pairs)) // a growing mapping takes twice the time
	}
	for _, pair := range pairs {
		(*to)[pair[0]] = pair[1]
	}
	_, err := r.ReadToken()
	return err
}

// Map reads an object into a map. It reads each value with the function.
func Map[K ~string, V any](r *Reader, to *map[K]V, read func(*Reader) (V, error)) error {
	if r.PeekKind() == 'n' {
		*to = nil
		return r.SkipValue()
	}
	if _, err := r.open('{', reflect.TypeFor[map[K]V]()); err != nil {
		return err
	}
	if *to == nil {
		*to = map[K]V{}
	}
	for r.PeekKind() == '"' {
		var name string
		if err := r.String(&name); err != nil {
			return err
		}
		value, err := read(r)
		if err != nil {
			return err
		}
		(*to)[K(name)] = value
	}
	_, err := r.ReadToken()
	return err
}

// String reads a string.
func (r *Reader) String(to *string) error {
	switch r.PeekKind() {
	case '"':
		text, err := r.ReadValue()
		if err != nil {
			return err
		}
		*to = r.Keep(unquoted(text))
		return nil
	case 'n':
		return r.SkipValue()
	}
	return r.mismatch(reflect.TypeFor[string]())
}

// Bool reads true or false.
func (r *Reader) Bool(to *bool) error {
	switch r.PeekKind() {
	case 't', 'f':
		token, err := r.ReadToken()
		*to = err == nil && token.Bool()
		return err
	case 'n':
		return r.SkipValue()
	}
	return r.mismatch(reflect.TypeFor[bool]())
}

// Integer reads an integer.
func (r *Reader) Integer(to *int64) error { return r.integer(to, math.MinInt64, math.MaxInt64) }

// Integer32 reads an integer of 32 bits.
func (r *Reader) Integer32(to *int32) error {
	n := int64(*to)
	err := r.integer(&n, math.MinInt32, math.MaxInt32)
	*to = int32(n) //nolint:gosec // r.integer has checked it
	return err
}

func (r *Reader) integer(to *int64, least, most int64) error {
	switch r.PeekKind() {
	case '0':
		token, err := r.ReadToken()
		if err != nil {
			return err
		}
		n, err := token.Int()
		if err == nil && (n < least || n > most) {
			err = errRange
		}
		if err != nil {
			return r.Wrong('0', reflect.TypeFor[int64](), err)
		}
		*to = n
		return nil
	case 'n':
		return r.SkipValue()
	}
	return r.mismatch(reflect.TypeFor[int64]())
}

// IntegerPointer reads an integer into a pointer. null sets the pointer to nil.
func (r *Reader) IntegerPointer(to **int64) error {
	if r.PeekKind() == 'n' {
		*to = nil
		return r.SkipValue()
	}
	if *to == nil {
		*to = new(int64)
	}
	return r.Integer(*to)
}

// Value reads any value unchanged. null results in nil.
func (r *Reader) Value(to *jsontext.Value) error {
	null := r.PeekKind() == 'n'
	value, err := r.ReadValue()
	if *to = nil; !null {
		*to = value.Clone()
	}
	return err
}

// Text reads any value unchanged.
func (r *Reader) Text(to *string) error {
	value, err := r.ReadValue()
	*to = r.Keep(value)
	return err
}

// Append reads the value of the member with this name. It appends name and value unchanged to a
// JSON object; object is empty if it has no members yet.
func (r *Reader) Append(object *string, name string) error {
	value, err := r.ReadValue()
	if err != nil {
		return err
	}
	before := "{"
	if *object != "" {
		before = (*object)[:len(*object)-1] + ","
	}
	if r.quoted, err = jsontext.AppendQuote(r.quoted[:0], name); err != nil {
		return err
	}
	r.reserve(len(before) + len(r.quoted) + len(value) + 2)
	from := r.text.Len()
	r.text.WriteString(before)
	r.text.Write(r.quoted)
	r.text.WriteByte(':')
	r.text.Write(value)
	r.text.WriteByte('}')
	*object = r.text.String()[from:]
	return nil
}

// Keep returns a string with a copy of b.
func (r *Reader) Keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	r.reserve(len(b))
	from := r.text.Len()
	r.text.Write(b)
	return r.text.String()[from:]
}

// reserve makes space for n more bytes. The strings that were already read stay valid.
func (r *Reader) reserve(n int) {
	if r.text.Cap()-r.text.Len() >= n {
		return
	}
	const most = 16 << 10
	r.text = strings.Builder{}
	// About half of a pod is stored. The rest is names and skipped values.
	r.text.Grow(max(n, min(most, len(r.UnreadBuffer())/2)))
}

// unquoted returns the value of a JSON string.
func unquoted(text jsontext.Value) []byte {
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return text[1 : len(text)-1]
	}
	// The decoder has already rejected invalid UTF-8 or accepted it. If accepted, it is replaced by
	// U+FFFD.
	b, _ := jsontext.AppendUnquote(nil, text)
	return b
}

// mismatch reads the next value, which has the wrong type, and returns the error.
func (r *Reader) mismatch(wanted reflect.Type) error {
	kind := r.PeekKind()
	if err := r.SkipValue(); err != nil {
		return err
	}
	return r.Wrong(kind, wanted, nil)
}

// Wrong returns the error for the value that was read last.
func (r *Reader) Wrong(kind jsontext.Kind, wanted reflect.Type, err error) error {
	return &json.SemanticError{
		ByteOffset: r.InputOffset(), JSONPointer: r.StackPointer(), JSONKind: kind, GoType: wanted, Err: err,
	}
}

// errRange is the error for an integer with too many bits.
var errRange = errors.New("value out of range")
