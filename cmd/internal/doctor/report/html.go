package report

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"strings"

	"github.com/ampbridge/ampbridge/policy/check"
)

// pageHead is the page down to the start of its content.
//
//go:embed page.html
var pageHead string

// page builds the HTML. It does not use html/template: that package looks methods
// up by name, so the linker would have to keep every method of every type, and the
// program would be twice as large.
type page struct{ strings.Builder }

// put writes the format. The arguments are text and are escaped.
func (p *page) put(format string, args ...any) {
	for i, arg := range args {
		args[i] = html.EscapeString(fmt.Sprint(arg))
	}
	_, _ = fmt.Fprintf(p, format, args...) // a Builder takes everything
}

// HTML writes the report as one page without scripts and without requests to the
// network. The page begins with the failed checks and a sequence diagram, which
// has the colours of the checks.
func HTML(w io.Writer, r check.Report) error {
	var p page
	p.putTitle(r)
	p.putSummary(r)
	p.putFixes(r)
	p.put("\n<h2>Data flow</h2>\n<figure>\n")
	for _, d := range []diagram{newDiagram(r, "wide", 1000, 46), newDiagram(r, "narrow", 350, 46)} {
		p.putDiagram(d)
	}
	p.put("</figure>\n\n<h2>Checks</h2>\n<ol>\n")
	for _, c := range check.All {
		if findings := r.Of(c.ID); len(findings) > 0 {
			p.putCheck(c, r.Status(c.ID), findings)
		}
	}
	p.put("</ol>\n")
	p.putEnd("✓ pass · ✗ fail · ! warn · – skip. This page contains no secrets.")
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *page) putTitle(r check.Report) {
	title := "ampbridge doctor"
	if r.Cluster != "" {
		title += ": " + r.Cluster
	}
	p.putHead(overall(r), title)
}

// putHead writes the page down to the start of its content.
func (p *page) putHead(status check.Status, title string) {
	before, after, _ := strings.Cut(pageHead, "</title>")
	_, _ = p.WriteString(before) // a Builder takes everything
	p.put("%v %v", mark(status), title)
	_, _ = p.WriteString("</title>" + after)
}

func (p *page) putEnd(footer string) {
	p.put("<footer>%v</footer>\n</main>\n</body>\n</html>\n", footer)
}

// putSummary writes the failed checks, or the passed ones if none failed, as the
// headline, and the other results below it.
func (p *page) putSummary(r check.Report) {
	p.put("<h1>ampbridge doctor")
	if r.Cluster != "" {
		p.put(" · cluster %v", r.Cluster)
	}
	counts := r.Counts()
	headline, rest, _ := strings.Cut(counts.String(), ", ")
	if failed := counts.Failed; len(failed) > 0 {
		counts.Failed = nil
		headline, rest = "1 check failed: "+string(failed[0]), counts.String()
		if len(failed) > 1 {
			headline = fmt.Sprintf("%d checks failed: %s", len(failed), join(failed))
		}
	}
	p.put("</h1>\n<p class=\"summary %v\">%v</p>\n", overall(r), headline)
	if rest != "" {
		p.put("<p class=\"rest\">%v</p>", rest)
	}
	p.put("\n\n")
}

// join returns the IDs, separated by commas.
func join(ids []check.ID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ", ")
}

// overall returns the status of the whole report.
func overall(r check.Report) check.Status {
	switch {
	case len(r.Failed()) > 0:
		return check.Fail
	case len(r.Unchecked()) > 0:
		return check.Skip
	}
	return check.Pass
}

// putFixes repeats the failed checks with their fixes at the top of the page.
func (p *page) putFixes(r check.Report) {
	first := true
	for _, c := range check.All {
		for _, f := range r.Of(c.ID) {
			if f.Status != check.Fail {
				continue
			}
			if first {
				p.put("<h2>What to do</h2>\n")
			}
			first = false
			p.put("<section class=\"todo\"><p class=\"finding fail\"><a href=\"#check-%v\"><strong>%v</strong></a> ", f.ID, f.ID)
			p.putAbout(f)
			p.put("<span>%v</span></p>\n", f.Message)
			p.putFix(f)
			p.put("</section>\n")
		}
	}
}

func (p *page) putAbout(f check.Finding) {
	if about := f.About.String(); about != "" {
		p.put("<span class=\"about\">%v: </span>", about)
	}
}

func (p *page) putFix(f check.Finding) {
	if f.Fix == nil {
		return
	}
	p.put("<div class=\"fix\"><p>→ %v</p>", f.Fix.Summary)
	for _, command := range f.Fix.Commands {
		p.put("<pre>%v</pre>", command)
	}
	p.put("</div>")
}

func (p *page) putCheck(c check.Check, status check.Status, findings []check.Finding) {
	p.put("<li class=\"check %v\" id=\"check-%v\" data-check=\"%v\" data-status=\"%v\">\n", status, c.ID, c.ID, status)
	p.put("<span class=\"mark\" aria-label=\"%v\">%v</span><span class=\"name\">%v</span>\n", status, mark(status), c.ID)
	p.put("<div class=\"body\"><p class=\"question\">%v</p>\n", c.Question)
	for _, f := range findings {
		p.put("<p class=\"finding %v\">", f.Status)
		p.putAbout(f)
		p.put("<span class=\"message\">%v</span></p>\n", f.Message)
		p.putFix(f)
		p.put("\n")
	}
	p.put("</div></li>\n")
}

func (p *page) putDiagram(d diagram) {
	p.put(
		"<svg class=\"%v\" viewBox=\"0 0 %v %v\" role=\"img\" aria-label=\"Sequence of the steps from policy to samples, each in the "+
			"colour of its checks\">\n",
		d.Class,
		d.Width,
		d.Height,
	)
	for _, l := range d.Lanes {
		p.put(
			"<line class=\"lane\" x1=\"%v\" y1=\"26\" x2=\"%v\" y2=\"%v\"/><text class=\"participant\" x=\"%v\" y=\"14\" "+
				"text-anchor=\"middle\">%v</text>\n",
			l.X,
			l.X,
			l.Bottom,
			l.X,
			l.Name,
		)
	}
	for _, s := range d.Steps {
		p.put(
			"<g class=\"%v\" data-step=\"%v\" data-status=\"%v\"><a href=\"#check-%v\"><title>%v</title>\n",
			s.Status,
			s.Number,
			s.Status,
			s.Check,
			s.Title,
		)
		p.put(
			"<circle class=\"dot\" cx=\"%v\" cy=\"%v\" r=\"9\"/><text class=\"number\" x=\"%v\" y=\"%v\" text-anchor=\"middle\">%v</text>\n",
			s.DotX,
			s.DotY,
			s.DotX,
			s.NumberY,
			s.Number,
		)
		p.put("<text class=\"label\" x=\"%v\" y=\"%v\">%v</text>\n", s.TextX, s.TextY, s.Label)
		p.put(
			"<line class=\"step\" x1=\"%v\" y1=\"%v\" x2=\"%v\" y2=\"%v\"/><polygon class=\"head\" points=\"%v\"/>\n",
			s.From,
			s.Y,
			s.To,
			s.Y,
			s.Head,
		)
		if s.Cross != "" {
			p.put("<path class=\"cross\" d=\"%v\"/>", s.Cross)
		}
		p.put("</a></g>\n")
	}
	p.put("</svg>\n")
}
