package page

import (
	"io"

	"github.com/ampbridge/ampbridge/policy/check"
)

// Sheet is a page of lists under headings.
type Sheet struct {
	// Title names the page. Summary is the headline, in the colour of Status. Rest is
	// the text below the headline; empty: none.
	Title, Summary, Rest string
	Status               check.Status
	Sections             []Section
	Footer               string
}

// Section is a list under a heading. A section without items is left out.
type Section struct {
	Title string
	Items []Item
}

// Item is one row: a name, a description, and results.
type Item struct {
	Status      check.Status
	Name, About string
	Lines       []Line
}

// Line is one result of an item. About names its object; empty: the item's.
type Line struct {
	Status         check.Status
	About, Message string
}

// HTML writes the page.
func (s Sheet) HTML(w io.Writer) error {
	p := Start(s.Status, s.Title)
	p.Put("<h1>%v</h1>\n<p class=\"summary %v\">%v</p>\n", s.Title, s.Status, s.Summary)
	if s.Rest != "" {
		p.Put("<p class=\"rest\">%v</p>\n", s.Rest)
	}
	for _, section := range s.Sections {
		if len(section.Items) == 0 {
			continue
		}
		p.Put("\n<h2>%v</h2>\n<ol>\n", section.Title)
		for _, i := range section.Items {
			p.putItem(i)
		}
		p.Put("</ol>\n")
	}
	return p.End(w, s.Footer)
}

func (p *Page) putItem(i Item) {
	p.Put("<li class=\"check %v\" data-status=\"%v\"><div class=\"row\">\n", i.Status, i.Status)
	p.PutMark(i.Status)
	p.Put("<span class=\"name\">%v</span><p class=\"question\">%v</p></div>\n<div class=\"body\">", i.Name, i.About)
	for _, l := range i.Lines {
		p.PutFinding(l.Status, l.About, l.Message)
		p.Put("\n")
	}
	p.Put("</div></li>\n")
}

// PutFinding writes a line with a message about an object; empty: it needs no name.
func (p *Page) PutFinding(status check.Status, about, message string) {
	p.Put("<p class=\"finding %v\">", status)
	if about != "" {
		p.Put("<span class=\"about\">%v: </span>", about)
	}
	p.Put("<span class=\"message\">%v</span></p>", message)
}
