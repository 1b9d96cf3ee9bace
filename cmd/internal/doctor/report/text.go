package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy/check"
)

// Text writes the report for people: a line for each finding, with the fix below
// a finding that needs one, and a summary at the end.
func Text(w io.Writer, r check.Report) error {
	var b bytes.Buffer
	width := 0
	for _, c := range check.All {
		width = max(width, len(c.ID))
	}
	indent := strings.Repeat(" ", width+4)
	for _, c := range check.All {
		findings := r.Of(c.ID)
		if passed := passed(findings); len(passed) > few {
			fmt.Fprintf(&b, "%s %-*s  %d passed, the first for %s\n", mark(check.Pass), width, c.ID, len(passed), passed[0].About)
			findings = slices.DeleteFunc(findings, func(f check.Finding) bool { return f.Status == check.Pass })
		}
		for _, f := range findings {
			about := f.About.String()
			if about != "" {
				about += ": "
			}
			fmt.Fprintf(&b, "%s %-*s  %s%s\n", mark(f.Status), width, f.ID, about, f.Message)
			if f.Fix == nil {
				continue
			}
			fmt.Fprintf(&b, "%s→ %s\n", indent, f.Fix.Summary)
			for _, command := range f.Fix.Commands {
				fmt.Fprintf(&b, "%s  $ %s\n", indent, command)
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", r.Summary())
	_, err := w.Write(b.Bytes())
	return err
}

// few is the number of passed findings of one check that are printed one by one.
const few = 3

// passed returns the findings that passed.
func passed(findings []check.Finding) []check.Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f check.Finding) bool { return f.Status != check.Pass })
}

// mark returns the sign of a status.
func mark(s check.Status) string {
	switch s {
	case check.Pass:
		return "✓"
	case check.Fail:
		return "✗"
	case check.Warn:
		return "!"
	}
	return "–"
}
