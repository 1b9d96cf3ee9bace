package report

import (
	"io"

	"github.com/ampbridge/ampbridge/cmd/internal/page"
	"github.com/ampbridge/ampbridge/policy/check"
)

// htmlPage is the page of a report.
type htmlPage struct{ *page.Page }

// HTML writes the report as one page without scripts and without requests to the
// network. After the verdict it has the failed checks, a sequence diagram in the colours
// of the checks, and all checks, of which the failed ones are open.
func HTML(w io.Writer, r check.Report) error {
	title := "ampbridge doctor"
	if r.Cluster != "" {
		title += ": " + r.Cluster
	}
	p := htmlPage{page.Start(overall(r), title)}
	p.putHead(r)
	p.putFixes(r)
	p.Put("\n<h2>Data flow</h2>\n<figure>\n")
	for _, d := range []diagram{
		newDiagram(r, "wide", 1000, 46), newDiagram(r, "medium", 660, 46), newDiagram(r, "narrow", 350, 46),
	} {
		p.putDiagram(d)
	}
	p.Put("</figure>\n\n<h2>Checks</h2>\n<ol>\n")
	for _, c := range check.All {
		if findings := r.Of(c.ID); len(findings) > 0 {
			p.putCheck(c, r.Status(c.ID), findings)
		}
	}
	p.Put("</ol>\n")
	return p.End(w, "✓ pass · ✗ fail · ! warn · – skip. A click on a command selects all of it. "+
		"This page contains no secrets.")
}

// putHead writes the verdict, and what was checked and when.
func (p htmlPage) putHead(r check.Report) {
	p.Put("<h1>ampbridge doctor")
	if r.Cluster != "" {
		p.Put(" · cluster %v", r.Cluster)
	}
	v := newVerdict(r)
	p.Put("</h1>\n<p class=\"summary %v\">%v</p>\n", v.status, v.headline)
	for _, text := range []string{v.rest, v.fix} {
		if text != "" {
			p.Put("<p class=\"rest\">%v</p>\n", text)
		}
	}
	p.Put("<dl class=\"run\">\n")
	for _, row := range headRows(r) {
		p.Put("<dt>%v</dt><dd>%v</dd>\n", row.name, row.value)
	}
	p.Put("</dl>\n\n")
}

// putFixes repeats the failed checks with their fixes at the top of the page.
func (p htmlPage) putFixes(r check.Report) {
	first := true
	for _, c := range check.All {
		for _, group := range lines(r.Of(c.ID)) {
			if group[0].Status != check.Fail {
				continue
			}
			if first {
				p.Put("<h2>What to do</h2>\n")
			}
			first = false
			p.Put("<section class=\"todo\"><p class=\"finding fail\"><a href=\"#check-%v\"><strong>%v</strong></a> ", c.ID, c.ID)
			if object := about(group); object != "" {
				p.Put("<span class=\"about\">%v: </span>", object)
			}
			p.Put("<span>%v</span></p>\n", group[0].Message)
			p.putDetails(group[0])
			p.Put("</section>\n")
		}
	}
}

// putFinding writes a finding about an object with its details.
func (p htmlPage) putFinding(f check.Finding, object string) {
	p.PutFinding(f.Status, object, f.Message)
	p.putDetails(f)
	p.Put("\n")
}

// putDetails writes the compared values and the fix of a finding.
func (p htmlPage) putDetails(f check.Finding) {
	if f.Compared != nil {
		p.putCompared(*f.Compared)
	}
	if f.Fix == nil {
		return
	}
	p.Put("<div class=\"fix\"><p>→ %v</p>", f.Fix.Summary)
	for _, command := range f.Fix.Commands {
		p.Put("<pre title=\"a click selects the whole command\">%v</pre>", command)
	}
	p.Put("</div>")
}

// putCompared writes two values, with marks where they differ.
func (p htmlPage) putCompared(c check.Comparison) {
	found, wanted := c.Segments()
	p.Put("<dl class=\"compared\">")
	for _, value := range []struct {
		name     string
		segments []check.Segment
	}{{"found", found}, {"wanted", wanted}} {
		p.Put("<dt>%v</dt><dd class=\"value\" data-value=\"%v\">", value.name, value.name)
		for _, s := range value.segments {
			if s.Differs {
				p.Put("<mark>%v</mark>", s.Text)
			} else {
				p.Put("%v", s.Text)
			}
		}
		p.Put("</dd>")
	}
	if words := c.String(); words != "" {
		p.Put("<dt>%v</dt><dd>%v</dd>", c.What, words)
	}
	p.Put("</dl>")
}

// putCheck writes a check that can be folded. A check that failed is open.
func (p htmlPage) putCheck(c check.Check, status check.Status, findings []check.Finding) {
	open := ""
	if status == check.Fail {
		open = " open"
	}
	p.Put("<li class=\"check %v\" id=\"check-%v\" data-check=\"%v\" data-status=\"%v\">", status, c.ID, c.ID, status)
	p.Put("<details%v><summary class=\"row\">\n", open)
	p.PutMark(status)
	p.Put("<span class=\"name\">%v</span><span class=\"question\">%v</span></summary>\n<div class=\"body\">",
		c.ID, c.Question)
	for _, group := range lines(findings) {
		p.putFinding(group[0], about(group))
		if len(group) == 1 {
			continue
		}
		p.Put("<details class=\"many\"><summary>all %v</summary><div>\n", objects(group))
		for _, f := range group {
			p.putFinding(f, f.About.String())
		}
		p.Put("</div></details>\n")
	}
	p.Put("</div></details></li>\n")
}

func (p htmlPage) putDiagram(d diagram) {
	p.Put("<svg class=\"%v\" viewBox=\"0 0 %v %v\" role=\"img\" aria-label=\"Sequence of the steps from policy to "+
		"samples, each "+
		"in the colour of its checks\">\n", d.Class, d.Width, d.Height)
	for _, l := range d.Lanes {
		p.Put("<line class=\"lane\" x1=\"%v\" y1=\"26\" x2=\"%v\" y2=\"%v\"/><text class=\"participant\" x=\"%v\" y=\"14\" "+
			"text-anchor=\"middle\">%v</text>\n", l.X, l.X, l.Bottom, l.X, l.Name)
	}
	for _, s := range d.Steps {
		p.Put("<g class=\"%v\" data-step=\"%v\" data-status=\"%v\"><a href=\"#check-%v\"><title>%v</title>\n",
			s.Status, s.Number, s.Status, s.Check, s.Title)
		p.Put("<circle class=\"dot\" cx=\"%v\" cy=\"%v\" r=\"9\"/><text class=\"number\" x=\"%v\" y=\"%v\" "+
			"text-anchor=\"middle\">%v</text>\n", s.DotX, s.DotY, s.DotX, s.NumberY, s.Number)
		p.Put("<text class=\"label\" x=\"%v\" y=\"%v\">%v</text>\n", s.TextX, s.TextY, s.Label)
		p.Put("<line class=\"step\" x1=\"%v\" y1=\"%v\" x2=\"%v\" y2=\"%v\"/><polygon class=\"head\" points=\"%v\"/>\n",
			s.From, s.Y, s.To, s.Y, s.Head)
		if s.Cross != "" {
			p.Put("<path class=\"cross\" d=\"%v\"/>", s.Cross)
		}
		p.Put("</a></g>\n")
	}
	p.Put("</svg>\n")
}
