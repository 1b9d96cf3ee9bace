// Package page is the design of the project's HTML pages: doctor's report and the status
// page of sync. A page is one file. It has no scripts and loads nothing.
//
// It does not use html/template: that package looks methods up by name, so the linker
// would have to keep every method of every type, and the program would be twice as large.
package page

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/ampbridge/ampbridge/policy/check"
)

// head is a page down to the start of its content.
//
//go:embed page.html
var head string

// Page is a page that is being written.
type Page struct{ content strings.Builder }

// Start returns a page with a title. The status is a mark before the title.
func Start(status check.Status, title string) *Page {
	var p Page
	before, after, _ := strings.Cut(head, "</title>")
	_, _ = p.content.WriteString(before) // a Builder takes everything
	p.Put("%v %v", Mark(status), title)
	_, _ = p.content.WriteString("</title>" + after)
	return &p
}

// Put writes the format, which is HTML. The arguments are text and are escaped.
func (p *Page) Put(format string, args ...any) {
	for i, arg := range args {
		args[i] = html.EscapeString(fmt.Sprint(arg))
	}
	_, _ = fmt.Fprintf(&p.content, format, args...) // a Builder takes everything
}

// PutMark writes the sign of a status.
func (p *Page) PutMark(status check.Status) {
	p.Put("<span class=\"mark %v\" role=\"img\" aria-label=\"%v\">%v</span>", status, status, Mark(status))
}

// End writes the footer, and then the page to w.
func (p *Page) End(w io.Writer, footer string) error {
	p.Put("<footer>%v</footer>\n</main>\n</body>\n</html>\n", footer)
	_, err := io.WriteString(w, p.content.String())
	return err
}

// Mark returns the sign of a status.
func Mark(s check.Status) string {
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
