// Package jsonread decodes JSON objects member by member, with the token reader of
// github.com/go-json-experiment/json and without reflection.
//
// It decodes what encoding/json would, as Kubernetes uses it: names are
// case-sensitive, null leaves a value as it is, and of members with the same name the
// objects are merged and the last value counts. The decoder's own options say whether
// it takes such names at all.
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
	// text holds the strings that were read, one after the other: each by itself would be
	// an allocation of its own.
	text strings.Builder
	// quoted is where a name is quoted, and pairs where a mapping is gathered.
	quoted []byte
	pairs  [][2]string
}

// Readable is what reads itself: the value of a review that somebody else knows.
type Readable interface{ ReadJSON(r *Reader) error }

// From returns a reader of the decoder's next value.
func From(d *jsontext.Decoder) *Reader { return &Reader{Decoder: d} }

// Object reads an object. It calls member for each of the object's members. The name
// is valid until member reads the value, which it must.
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
	_, err := r.ReadToken() // the end, or what is wrong
	return err
}

// Optional reads an object that is a pointer in Kubernetes: null makes it zero.
func Optional[T any](r *Reader, to *T, member func(to *T, r *Reader, name []byte) error) error {
	if r.PeekKind() == 'n' {
		*to = *new(T)
	}
	return Object(r, to, member)
}

// Pointer reads an object that the type tells from none.
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

// Objects reads a list of objects. Usually there are up to n.
func Objects[T any](r *Reader, to *[]T, n int, member func(to *T, r *Reader, name []byte) error) error {
	return list(r, to, n, member, nil)
}

// Strings reads a list of strings. Usually there are up to n.
func (r *Reader) Strings(to *[]string, n int) error { return list(r, to, n, nil, (*Reader).String) }

// Integers reads a list of integers.
func (r *Reader) Integers(to *[]int64) error { return list(r, to, 4, nil, (*Reader).Integer) }

// Values reads a list of anything.
func (r *Reader) Values(to *[]jsontext.Value) error { return list(r, to, 4, nil, (*Reader).Value) }

// list reads a list of objects, by their members, or of other items. A closure for each
// list would be an allocation.
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
			items = items[:len(items)+1] // zero, or what the same list had before
		default:
			items = slices.Grow(items, max(n, 1))[:len(items)+1]
			n = len(items) // twice as many
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

// open reads the beginning of an object or a list. It reports whether there is null in
// its place.
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

// StringMap reads an object of strings.
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
		*to = make(map[string]string, len(pairs)) // a mapping that grows takes twice the time
	}
	for _, pair := range pairs {
		(*to)[pair[0]] = pair[1]
	}
	_, err := r.ReadToken()
	return err
}

// Map reads an object as a mapping, each value with the function.
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

// IntegerPointer reads an integer that null tells from none.
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

// Value reads anything, as it was written; nil: null.
func (r *Reader) Value(to *jsontext.Value) error {
	null := r.PeekKind() == 'n'
	value, err := r.ReadValue()
	if *to = nil; !null {
		*to = value.Clone()
	}
	return err
}

// Text reads anything, as it was written.
func (r *Reader) Text(to *string) error {
	value, err := r.ReadValue()
	*to = r.Keep(value)
	return err
}

// Append reads the value of the member with this name, and appends both to a JSON
// object, as they were written; empty: there is no object yet.
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

// Keep returns b as a string that lasts.
func (r *Reader) Keep(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	r.reserve(len(b))
	from := r.text.Len()
	r.text.Write(b)
	return r.text.String()[from:]
}

// reserve makes room for n bytes more. Strings that were read stay where they are.
func (r *Reader) reserve(n int) {
	if r.text.Cap()-r.text.Len() >= n {
		return
	}
	const most = 16 << 10
	r.text = strings.Builder{}
	// About half of a pod is kept: the rest is names and what is skipped.
	r.text.Grow(max(n, min(most, len(r.UnreadBuffer())/2)))
}

// unquoted returns what a JSON string says.
func unquoted(text jsontext.Value) []byte {
	if bytes.IndexByte(text, '\\') < 0 && utf8.Valid(text) {
		return text[1 : len(text)-1]
	}
	// The decoder has decided whether it takes invalid UTF-8; the result has U+FFFD instead.
	b, _ := jsontext.AppendUnquote(nil, text)
	return b
}

// mismatch reads the next value, which is not of the type that is wanted, and returns
// the error.
func (r *Reader) mismatch(wanted reflect.Type) error {
	kind := r.PeekKind()
	if err := r.SkipValue(); err != nil {
		return err
	}
	return r.Wrong(kind, wanted, nil)
}

// Wrong is the error about the value that was read last.
func (r *Reader) Wrong(kind jsontext.Kind, wanted reflect.Type, err error) error {
	return &json.SemanticError{
		ByteOffset: r.InputOffset(), JSONPointer: r.StackPointer(), JSONKind: kind, GoType: wanted, Err: err,
	}
}

// errRange is about an integer that has too many bits.
var errRange = errors.New("value out of range")
