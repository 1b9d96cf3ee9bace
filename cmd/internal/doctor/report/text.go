package report

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ampbridge/ampbridge/cmd/internal/page"
	"github.com/ampbridge/ampbridge/policy/check"
)

// Printer prints text.
type Printer struct {
	// Color adds the escape codes of colours. Without it there are no escape codes.
	Color bool
}

// Text writes the report for people: the verdict, the head, and a line for each outcome
// of each check, with the fix below the ones that need it.
func (p Printer) Text(w io.Writer, r check.Report) error {
	return p.write(w, r, func(check.Finding) bool { return true })
}

// write writes the findings that show selects.
func (p Printer) write(w io.Writer, r check.Report, show func(check.Finding) bool) error {
	var b bytes.Buffer
	v := newVerdict(r)
	rest := strings.TrimPrefix(v.String(), v.headline)
	fmt.Fprintf(&b, "%s%s\n\n", p.paint(v.status, page.Mark(v.status)+" "+printable(v.headline)), printable(rest))
	rows := headRows(r)
	for _, row := range rows {
		fmt.Fprintf(&b, "  %-*s  %s\n", idWidth, row.name, printable(row.value))
	}
	if len(rows) > 0 {
		b.WriteByte('\n')
	}
	for _, c := range check.All {
		for _, group := range lines(r.Of(c.ID)) {
			if show(group[0]) {
				p.putGroup(&b, group)
			}
		}
	}
	_, err := w.Write(bytes.TrimRight(b.Bytes(), "\n"))
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n")
	return err
}

// idWidth is the width of the longest ID.
var idWidth = func() (width int) {
	for _, c := range check.All {
		width = max(width, len(c.ID))
	}
	return width
}()

// putGroup writes findings with one outcome: a line, the compared values, and the fix.
func (p Printer) putGroup(b *bytes.Buffer, group []check.Finding) {
	f := group[0]
	p.putLine(b, group)
	indent := strings.Repeat(" ", idWidth+4)
	if f.Compared != nil {
		for _, line := range p.compared(*f.Compared) {
			fmt.Fprintf(b, "%s%s\n", indent, line)
		}
	}
	if f.Fix == nil {
		return
	}
	fmt.Fprintf(b, "%s→ %s\n", indent, printable(f.Fix.Summary))
	for _, command := range f.Fix.Commands {
		fmt.Fprintf(b, "%s  $ %s\n", indent, printable(command.String()))
	}
}

// putLine writes the line of findings with one outcome.
func (p Printer) putLine(b *bytes.Buffer, group []check.Finding) {
	f := group[0]
	object := about(group)
	if object != "" {
		object += ": "
	}
	name := fmt.Sprintf("%s %-*s", page.Mark(f.Status), idWidth, f.ID)
	fmt.Fprintf(b, "%s  %s%s\n", p.paint(f.Status, name), printable(object), printable(f.Message))
}

// SGR codes of the statuses.
var colors = map[check.Status]string{check.Pass: "32", check.Fail: "1;31", check.Warn: "33", check.Skip: "2"}

// paint returns text in the colour of a status.
func (p Printer) paint(status check.Status, text string) string {
	if !p.Color || text == "" {
		return text
	}
	return "\x1b[" + colors[status] + "m" + text + "\x1b[0m"
}

// printable returns text on one line, without control characters: text of the cluster
// must not control the terminal. A line feed of a command stays: it belongs to it.
func printable(text string) string {
	return escaped(text, func(r rune) bool { return r == '\n' || strconv.IsPrint(r) })
}

// escaped returns text with Go's escapes for all runes that keep does not accept.
func escaped(text string, keep func(rune) bool) string {
	var b strings.Builder
	for _, r := range text {
		if keep(r) {
			b.WriteRune(r)
			continue
		}
		b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
	}
	return b.String()
}

const (
	// contextBefore and contextAfter are how many characters are shown around a difference.
	contextBefore, contextAfter = 28, 16
	// longest is how many characters of a difference are shown.
	longest = 60
)

// compared returns three lines: both values, cut to the text around their differences, and
// carets below the longer one. It returns nothing if the values have nothing in common: the
// message contains both.
func (p Printer) compared(c check.Comparison) []string {
	found, wanted := c.Segments()
	differing, equal := 0, 0
	for _, s := range found {
		if s.Differs {
			differing++
		} else {
			equal++
		}
	}
	if differing == 0 || equal == 0 {
		return nil
	}
	lineFound, lineWanted, carets := "found   ", "wanted  ", "        "
	longer := false
	for i := range found {
		f, w := shown(found, i), shown(wanted, i)
		widthFound, widthWanted := utf8.RuneCountInString(f), utf8.RuneCountInString(w)
		width := max(widthFound, widthWanted)
		if !found[i].Differs {
			lineFound, lineWanted, carets = lineFound+f, lineWanted+w, carets+strings.Repeat(" ", width)
			continue
		}
		longer = longer || widthFound > widthWanted
		carets += strings.Repeat("^", width)
		if differing > 1 {
			// The next difference must stand below its place.
			f, w = f+strings.Repeat(" ", width-widthFound), w+strings.Repeat(" ", width-widthWanted)
		}
		lineFound, lineWanted = lineFound+p.paint(check.Fail, f), lineWanted+p.paint(check.Pass, w)
	}
	carets = strings.TrimRight(carets, " ")
	if words := c.String(); words != "" {
		carets += " " + words
	}
	if longer {
		return []string{lineFound, carets, lineWanted}
	}
	return []string{lineFound, lineWanted, carets}
}

// shown returns a part of a value, cut to the text near a difference. It escapes everything but
// printable ASCII.
func shown(segments []check.Segment, i int) string {
	s := segments[i]
	text := []rune(escaped(s.Text, func(r rune) bool { return r >= ' ' && r < utf8.RuneSelf-1 }))
	keepLast, keepFirst := 0, longest
	switch {
	case s.Differs:
	case i == 0:
		keepLast, keepFirst = contextBefore, 0
	case i == len(segments)-1:
		keepFirst = contextAfter
	}
	if len(text) <= keepFirst+keepLast+1 {
		return string(text)
	}
	return string(text[:keepFirst]) + "…" + string(text[len(text)-keepLast:])
}
