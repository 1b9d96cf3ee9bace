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

// meaning is what Prometheus reads in a configuration. Prometheus uses YAML
// package v2, which differs from v4: [localhost:] holds a string for one and a
// mapping for the other. So v4 edits, and v2 has the last word.
type meaning struct {
	// rest is a fingerprint of everything but remote_write.
	rest   uint64
	writes []any
	// field: remote_write is there, if only as null.
	field bool
}

// read reads the first document, which is the only one that Prometheus reads.
func read(config []byte) (m meaning, err error) {
	var root map[any]any
	if err := yamlv2.Unmarshal(config, &root); err != nil {
		return m, err
	}
	value, field := root[key]
	if m.field = field; value != nil {
		list, ok := value.([]any)
		if !ok {
			return m, errors.New(key + " is not a list")
		}
		m.writes = list
	}
	delete(root, key)
	m.rest = fingerprint(root)
	return m, nil
}

// with reports whether after means what m means, with blocks at the end.
func (m meaning) with(blocks []any, after meaning) bool {
	return m.rest == after.rest && fingerprint(slices.Concat(m.writes, blocks)) == fingerprint(after.writes)
}

// without is the meaning once the last n entries of remote_write are gone.
func (m meaning) without(n int) (meaning, error) {
	if n > len(m.writes) {
		return m, errors.New("remote_write has fewer entries than were added")
	}
	m.writes = m.writes[:len(m.writes)-n]
	return m, nil
}

// meaningOf is how Prometheus reads one block.
func meaningOf(b policy.Block) (any, error) {
	text, err := yaml.Marshal(b)
	if err != nil {
		return nil, err
	}
	var value any
	err = yamlv2.Unmarshal(text, &value)
	return value, err
}

// namesOf are the names of remote_write's entries.
func (m meaning) namesOf() map[string]bool {
	names := map[string]bool{}
	for _, entry := range m.writes {
		if name := textOf(entry, "name"); name != "" {
			names[name] = true
		}
	}
	return names
}

// textOf is a field of an entry as text; empty where it is not there.
func textOf(entry any, field string) string {
	fields, _ := entry.(map[any]any)
	if value := fields[field]; value != nil {
		return fmt.Sprint(value)
	}
	return ""
}

var seed = maphash.MakeSeed()

// fingerprint is a hash of a value that package v2 has decoded. The order of a
// mapping's fields does not count.
func fingerprint(value any) uint64 {
	switch v := value.(type) {
	case map[any]any:
		sum := uint64(len(v))
		for name, field := range v {
			sum += maphash.Comparable(seed, [2]uint64{fingerprint(name), fingerprint(field)})
		}
		return maphash.Comparable(seed, sum)
	case []any:
		var h maphash.Hash
		h.SetSeed(seed)
		maphash.WriteComparable(&h, len(v))
		for _, entry := range v {
			maphash.WriteComparable(&h, fingerprint(entry))
		}
		return h.Sum64()
	case float64:
		return maphash.Comparable(seed, [2]uint64{1, math.Float64bits(v)}) // NaN is what it is
	case string:
		return maphash.String(seed, v)
	}
	return maphash.Comparable(seed, value) // with its type
}
