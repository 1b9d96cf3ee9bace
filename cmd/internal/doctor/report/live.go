package report

import (
	"bytes"
	"fmt"
	"io"

	"github.com/ampbridge/ampbridge/policy/check"
)

// Live prints checks as they end, and the verdict when all have ended.
type Live struct {
	printer Printer
	w       io.Writer
	printed map[string]bool
	err     error
}

// Live returns a Live that writes to w.
func (p Printer) Live(w io.Writer) *Live { return &Live{printer: p, w: w, printed: map[string]bool{}} }

// Print prints the line of a finding. It prints no second line for an outcome of a check.
func (l *Live) Print(f check.Finding) {
	key := outcome(f)
	if l.printed[key] || l.err != nil {
		return
	}
	l.printed[key] = true
	var b bytes.Buffer
	l.printer.putLine(&b, []check.Finding{f})
	_, l.err = l.w.Write(b.Bytes())
}

// End prints the report below the lines so far. It does not repeat what passed. A warning that a
// later check turned into a pass is printed again, as a pass.
func (l *Live) End(w io.Writer, r check.Report) error {
	if l.err != nil {
		return l.err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	return l.printer.write(w, r, func(f check.Finding) bool { return f.Status != check.Pass || !l.printed[outcome(f)] })
}
