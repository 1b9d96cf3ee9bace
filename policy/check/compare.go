package check

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Comparison has the value that a check found and the value that it wanted, if they differ.
// The values are issuers, subjects, audiences and ARNs, never secrets.
type Comparison struct {
	// What names the value, such as issuer.
	What   string `json:"what"`
	Found  string `json:"found"`
	Wanted string `json:"wanted"`
}

// Comparing returns the finding with the result of [Compare].
func (f Finding) Comparing(what, wanted string, found ...string) Finding {
	f.Compared = Compare(what, wanted, found...)
	return f
}

// Compare compares the wanted value with the found value that resembles it most. It returns
// nil if there are no found values, or if one of them is the wanted value.
func Compare(what, wanted string, found ...string) *Comparison {
	if len(found) == 0 || slices.Contains(found, wanted) {
		return nil
	}
	best, most := "", -1
	for _, candidate := range found {
		before, after := common([]rune(candidate), []rune(wanted))
		if equal := before + after; equal > most {
			best, most = candidate, equal
		}
	}
	return &Comparison{What: what, Found: best, Wanted: wanted}
}

// Segment is a part of a compared value.
type Segment struct {
	Text string
	// Differs is true if the other value differs here.
	Differs bool
}

// Segments splits both values into parts that are equal and parts that differ. A part that
// differs is empty if only the other value has text there.
//
// The common start and the common end are equal, and the middle differs. If both middles have
// the same length and are mostly equal, they are compared rune by rune: two changed digits of
// a long ID are two marks.
func (c Comparison) Segments() (found, wanted []Segment) {
	f, w := []rune(c.Found), []rune(c.Wanted)
	if c.Found == c.Wanted {
		return segment(f), segment(w)
	}
	before, after := common(f, w)
	middleOfFound, middleOfWanted := f[before:len(f)-after], w[before:len(w)-after]
	found, wanted = segment(f[:before]), segment(w[:before])
	for _, run := range runs(middleOfFound, middleOfWanted) {
		found = append(found, Segment{string(middleOfFound[run.from:run.foundTo]), run.differs})
		wanted = append(wanted, Segment{string(middleOfWanted[run.from:run.wantedTo]), run.differs})
	}
	return append(found, segment(f[len(f)-after:])...), append(wanted, segment(w[len(w)-after:])...)
}

// segment returns text that does not differ; nil if there is none.
func segment(text []rune) []Segment {
	if len(text) == 0 {
		return nil
	}
	return []Segment{{Text: string(text)}}
}

// run is a part of two texts that are compared rune by rune.
type run struct {
	from, foundTo, wantedTo int
	differs                 bool
}

// runs returns the parts of two texts whose first and last runes differ.
func runs(found, wanted []rune) []run {
	equal := 0
	for i := range min(len(found), len(wanted)) {
		if found[i] == wanted[i] {
			equal++
		}
	}
	if len(found) != len(wanted) || 2*equal <= len(found) {
		return []run{{0, len(found), len(wanted), true}}
	}
	var list []run
	for i := range found {
		differs := found[i] != wanted[i]
		if n := len(list); n > 0 && list[n-1].differs == differs {
			list[n-1].foundTo, list[n-1].wantedTo = i+1, i+1
			continue
		}
		list = append(list, run{i, i + 1, i + 1, differs})
	}
	return list
}

// common returns how many runes both texts begin with, and how many of the rest they
// end with.
func common(a, b []rune) (before, after int) {
	shorter := min(len(a), len(b))
	for before < shorter && a[before] == b[before] {
		before++
	}
	for after < shorter-before && a[len(a)-1-after] == b[len(b)-1-after] {
		after++
	}
	return before, after
}

// String describes the difference; empty: the marks of [Comparison.Segments] are enough. It
// escapes runes that are invisible or look like others.
func (c Comparison) String() string {
	found, wanted := differing(c.Segments())
	const long = 24
	switch {
	case len(found) != 1 || utf8.RuneCountInString(found[0]+wanted[0]) > long:
		if c.Found != c.Wanted && strings.EqualFold(c.Found, c.Wanted) {
			return "upper and lower case count"
		}
		return ""
	case found[0] == "":
		return fmt.Sprintf("%+q is missing", wanted[0])
	case wanted[0] == "":
		return fmt.Sprintf("%+q is too much", found[0])
	}
	return fmt.Sprintf("%+q must be %+q", found[0], wanted[0])
}

// differing returns the parts that differ.
func differing(found, wanted []Segment) (f, w []string) {
	for i, s := range found {
		if s.Differs {
			f, w = append(f, s.Text), append(w, wanted[i].Text)
		}
	}
	return f, w
}
