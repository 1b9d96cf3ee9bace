package promconfig

import (
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"

	yamlv2 "go.yaml.in/yaml/v2"
	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
)

// meaning is what Prometheus reads in a configuration. Prometheus uses version 2 of the YAML
// package, which sometimes differs from version 4: for [localhost:], one reads a string and the
// other a mapping. So version 4 edits, and version 2 decides.
type meaning struct {
	// rest is a fingerprint of everything except remote_write.
	rest   uint64
	writes []any
	// field is true if remote_write exists, even as null.
	field bool
}

// read reads the first document, which is the only one that Prometheus reads.
func read(config []byte) (meaning, error) {
	var r root
	err := yamlv2.Unmarshal(config, &r)
	if err == nil && r.rest == 0 {
		r.rest = fingerprint(map[any]any{}) // a null
	}
	return meaning(r), err
}

// root reads the configuration's root. Maps of the whole root would need several times the
// configuration's size, in addition to the parser's memory. So each entry of a list is replaced
// by its fingerprint as soon as it is read.
type root meaning

func (r *root) UnmarshalYAML(unmarshal func(any) error) error {
	var fields map[any]digest
	if err := unmarshal(&fields); err != nil {
		return err
	}
	writes, field := fields[key]
	if r.field = field; field {
		var only struct {
			Value any `yaml:"remote_write"`
		}
		if err := unmarshal(&only); err != nil {
			return err
		}
		if fingerprint(only.Value) != writes.sum() {
			return errors.New(key + " is read in two ways")
		}
		list, ok := only.Value.([]any)
		if !ok && only.Value != nil {
			return errors.New(key + " is not a list")
		}
		r.writes = list
		delete(fields, key)
	}
	r.rest = fingerprint(fields)
	return nil
}

// digest is the fingerprint of a field's value. It is zero for null, because package v2 does not
// call UnmarshalYAML for null.
type digest struct {
	of   uint64
	some bool
}

func (d digest) sum() uint64 {
	if !d.some {
		return fingerprint(nil)
	}
	return d.of
}

func (d *digest) UnmarshalYAML(unmarshal func(any) error) error {
	d.some = true
	var list []entryDigest
	err := unmarshal(&list)
	if err == nil && list != nil { // nil means null
		d.of = fingerprint(list)
		return nil
	}
	if wrong := (*yamlv2.TypeError)(nil); err != nil && !errors.As(err, &wrong) {
		return err
	}
	var value any
	err = unmarshal(&value)
	d.of = fingerprint(value)
	return err
}

// entryDigest is the fingerprint of a list's entry.
type entryDigest digest

func (d *entryDigest) UnmarshalYAML(unmarshal func(any) error) error {
	var value any
	err := unmarshal(&value)
	d.of, d.some = fingerprint(value), true
	return err
}

// with reports whether after has the same meaning as m with blocks at the end.
func (m meaning) with(blocks []any, after meaning) bool {
	return m.rest == after.rest && fingerprint(slices.Concat(m.writes, blocks)) == fingerprint(after.writes)
}

// without returns the meaning without the last n entries of remote_write.
func (m meaning) without(n int) (meaning, error) {
	if n > len(m.writes) {
		return m, errors.New("remote_write has fewer entries than were added")
	}
	m.writes = m.writes[:len(m.writes)-n]
	return m, nil
}

// meaningOf returns one block as Prometheus reads it.
func meaningOf(b policy.Block) (any, error) {
	text, err := yaml.Marshal(b)
	if err != nil {
		return nil, err
	}
	var value any
	err = yamlv2.Unmarshal(text, &value)
	return value, err
}

// namesOf returns the names of remote_write's entries.
func (m meaning) namesOf() map[string]bool {
	names := map[string]bool{}
	for _, entry := range m.writes {
		if name := textOf(entry, "name"); name != "" {
			names[name] = true
		}
	}
	return names
}

// textOf returns a field of an entry as text; empty without such a field.
func textOf(entry any, field string) string {
	fields, _ := entry.(map[any]any)
	if value := fields[field]; value != nil {
		return fmt.Sprint(value)
	}
	return ""
}

var seed = maphash.MakeSeed()

// fingerprint returns a hash of a value that package v2 has decoded. The order of a
// mapping's fields does not count.
func fingerprint(value any) uint64 {
	switch v := value.(type) {
	case map[any]any:
		return hashFields(v, fingerprint)
	case map[any]digest:
		return hashFields(v, digest.sum)
	case []any:
		return hashEntries(v, fingerprint)
	case []entryDigest:
		return hashEntries(v, func(d entryDigest) uint64 { return digest(d).sum() })
	case float64:
		return maphash.Comparable(seed, [2]uint64{1, math.Float64bits(v)}) // a NaN does not equal itself, so hash its bits
	case string:
		return maphash.String(seed, v)
	}
	return maphash.Comparable(seed, value) // the hash includes the type
}

func hashFields[V any](fields map[any]V, hash func(V) uint64) uint64 {
	sum := uint64(len(fields))
	for name, field := range fields {
		sum += maphash.Comparable(seed, [2]uint64{fingerprint(name), hash(field)})
	}
	return maphash.Comparable(seed, sum)
}

func hashEntries[V any](entries []V, hash func(V) uint64) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	maphash.WriteComparable(&h, len(entries))
	for _, entry := range entries {
		maphash.WriteComparable(&h, hash(entry))
	}
	return h.Sum64()
}
