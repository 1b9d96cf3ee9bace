package report

import (
	"io"

	"github.com/ampbridge/ampbridge/policy/check"
)

// Sheet is a page in the report's design, of something else than checks.
type Sheet struct {
	// Title is the page's, Summary what matters most, with its status, and Rest what
	// stands below it.
	Title, Summary, Rest string
	Status               check.Status
	Sections             []Section
	Footer               string
}

// Section is a list under a heading. Without items it is left out.
type Section struct {
	Title string
	Items []Item
}

// Item is one row: a name, what it is about, and lines about it.
type Item struct {
	Status      check.Status
	Name, About string
	Lines       []Line
}

// Line is one thing to say.
type Line struct {
	Status         check.Status
	About, Message string
}

// HTML writes the page. It has no scripts and loads nothing.
func (s Sheet) HTML(w io.Writer) error {
	var p page
	p.putHead(s.Status, s.Title)
	p.put("<h1>%v</h1>\n<p class=\"summary %v\">%v</p>\n", s.Title, s.Status, s.Summary)
	if s.Rest != "" {
		p.put("<p class=\"rest\">%v</p>\n", s.Rest)
	}
	for _, section := range s.Sections {
		if len(section.Items) == 0 {
			continue
		}
		p.put("\n<h2>%v</h2>\n<ol>\n", section.Title)
		for _, i := range section.Items {
			p.put("<li class=\"check %v\" data-status=\"%v\">\n", i.Status, i.Status)
			p.put("<span class=\"mark\" aria-label=\"%v\">%v</span><span class=\"name\">%v</span>\n", i.Status, mark(i.Status), i.Name)
			p.put("<div class=\"body\"><p class=\"finding about\">%v</p>\n", i.About)
			for _, l := range i.Lines {
				p.put("<p class=\"finding %v\">", l.Status)
				if l.About != "" {
					p.put("<span class=\"about\">%v: </span>", l.About)
				}
				p.put("<span class=\"message\">%v</span></p>\n", l.Message)
			}
			p.put("</div></li>\n")
		}
		p.put("</ol>\n")
	}
	p.putEnd(s.Footer)
	_, err := io.WriteString(w, p.String())
	return err
}
