package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// Version is the version of a Prometheus, as far as the fields of the configuration
// depend on it. The zero Version means that the version is not known.
type Version struct{ Major, Minor int }

// ParseVersion parses a version as Prometheus writes it: 2.42.0, v3.1.0-rc.0,
// 2.42.0+ds.
func ParseVersion(text string) (Version, error) {
	major, rest, majorOK := leadingNumber(strings.TrimPrefix(text, "v"))
	rest, dot := strings.CutPrefix(rest, ".")
	minor, rest, minorOK := leadingNumber(rest)
	if !majorOK || !dot || !minorOK || rest != "" && !strings.ContainsRune(".+~-", rune(rest[0])) || strings.Contains(rest, "\n") {
		return Version{}, fmt.Errorf("%q is not a version of Prometheus: write it like 3.1.0", text)
	}
	return Version{major, minor}, nil
}

// leadingNumber splits a number of up to six digits off a text. It is hand-written because it runs
// for each pod, and a regular expression took a microsecond.
func leadingNumber(text string) (n int, rest string, ok bool) {
	digits := 0
	for digits < len(text) && '0' <= text[digits] && text[digits] <= '9' {
		n = 10*n + int(text[digits]-'0')
		if digits++; digits > 6 {
			return 0, "", false
		}
	}
	return n, text[digits:], digits > 0
}

// IsZero reports whether the version is not known.
func (v Version) IsZero() bool { return v == Version{} }

// Before reports whether v is older than w.
func (v Version) Before(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

func (v Version) String() string { return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) }

// The oldest versions that ampbridge writes blocks for. Before 2.8, remote_write has no WAL.
var (
	oldestRelay = Version{2, 8}
	oldestSigV4 = Version{2, 26}
)

// newerFields lists the fields of a [Block] that Prometheus 2.8 does not know, each with the
// first version that knows it
// (https://github.com/prometheus/prometheus/blob/main/CHANGELOG.md).
var newerFields = []struct {
	name  string
	since Version
	set   func(*Block) bool
	clear func(*Block)
}{
	{"name", Version{2, 15}, func(b *Block) bool { return b.Name != "" }, func(b *Block) { b.ID, b.Name = b.Name, "" }},
	{"metadata_config", Version{2, 23}, func(b *Block) bool { return b.Metadata != nil }, func(b *Block) { b.Metadata = nil }},
	{"send_exemplars", Version{2, 27}, func(b *Block) bool { return b.SendExemplars }, func(b *Block) { b.SendExemplars = false }},
	{"send_native_histograms", Version{2, 40},
		func(b *Block) bool { return b.SendNativeHistograms }, func(b *Block) { b.SendNativeHistograms = false }},
	{"proxy_from_environment", Version{2, 43},
		func(b *Block) bool { return b.ProxyFromEnvironment }, func(b *Block) { b.ProxyFromEnvironment = false }},
	{"queue_config.sample_age_limit", Version{2, 50},
		func(b *Block) bool { return b.QueueConfig.SampleAgeLimit != "" }, func(b *Block) { b.QueueConfig.SampleAgeLimit = "" }},
}

// Omission is a field that was removed from a [Block], with the version of Prometheus that it needs.
type Omission struct {
	Field string
	Since Version
}

// For returns the block that a Prometheus of that version can read, and what was removed.
// Prometheus refuses a configuration with unknown fields. So for an unknown version, the block has
// only fields that every possible version knows: 2.26 and newer with sigv4, 2.8 and newer with the
// relay. A removed name is not in the list, because no user asked for it.
func (b Block) For(v Version) (Block, []Omission) {
	oldest := oldestSigV4
	if b.SigV4 == nil {
		oldest = oldestRelay
	}
	if v.Before(oldest) {
		v = oldest
	}
	var omitted []Omission
	for _, f := range newerFields {
		if !f.set(&b) || !v.Before(f.since) {
			continue
		}
		f.clear(&b)
		if f.name != "name" {
			omitted = append(omitted, Omission{f.name, f.since})
		}
	}
	return b, omitted
}
