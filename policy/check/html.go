package check

import (
	_ "embed"
	"fmt"
	"html"
	"io"
	"strings"
)

// pageHead is the page down to where its content begins.
//
//go:embed page.html
var pageHead string

// A page is HTML in the making. It is not one of html/template: that package
// looks methods up by name, so the linker would have to keep every method of
// every type, and the program would be twice its size.
type page struct{ strings.Builder }

// put writes the format with its arguments, which are text and never markup.
func (p *page) put(format string, args ...any) {
	for i, arg := range args {
		args[i] = html.EscapeString(fmt.Sprint(arg))
	}
	_, _ = fmt.Fprintf(p, format, args...) // a Builder takes everything
}

// HTML writes the ladder as one page that needs nothing else: no script, no
// network. It begins with the sequence of the steps, in the colours of their
// links.
func (l Report) HTML(w io.Writer) error {
	var p page
	l.putTitle(&p)
	l.putVerdict(&p)
	l.putTodo(&p)
	p.put("\n<h2>The way of the data</h2>\n<figure>\n")
	for _, d := range []diagram{l.diagram("wide", 1000, 46), l.diagram("narrow", 350, 46)} {
		d.put(&p)
	}
	p.put("</figure>\n\n<h2>Link by link</h2>\n<ol>\n")
	for _, r := range Chain {
		if findings := l.of(r.ID); len(findings) > 0 {
			r.put(&p, l.State(r.ID), findings)
		}
	}
	p.put("</ol>\n<footer>✓ holds · ✗ is broken · ! wants a look · – was not checked. This page holds no secrets.</footer>\n</main>\n</body>\n</html>\n")
	_, err := io.WriteString(w, p.String())
	return err
}

func (l Report) putTitle(p *page) {
	before, after, _ := strings.Cut(pageHead, "</title>")
	_, _ = p.WriteString(before) // a Builder takes everything
	mark, _ := l.outcome()
	p.put("%v ampbridge doctor", mark)
	if l.Cluster != "" {
		p.put(": %v", l.Cluster)
	}
	_, _ = p.WriteString("</title>" + after)
}

func (l Report) putVerdict(p *page) {
	p.put("<h1>ampbridge doctor")
	if l.Cluster != "" {
		p.put(" · cluster %v", l.Cluster)
	}
	_, verdict := l.outcome()
	headline, rest, _ := strings.Cut(strings.TrimSuffix(l.Verdict(), ")"), " (")
	p.put("</h1>\n<p class=\"verdict %v\">%v</p>\n", verdict, strings.ToUpper(headline[:1])+headline[1:])
	if rest != "" {
		p.put("<p class=\"rest\">%v</p>", rest)
	}
	p.put("\n\n")
}

// outcome returns the page's mark, and the class of its verdict.
func (l Report) outcome() (mark, class string) {
	switch {
	case len(l.Failed()) > 0:
		return Fail.Mark(), "broken"
	case len(l.Unchecked()) > 0:
		return Skip.Mark(), "unchecked"
	}
	return Pass.Mark(), "ok"
}

// putTodo names the broken links again: nobody should have to look for them.
func (l Report) putTodo(p *page) {
	first := true
	for _, r := range Chain {
		for _, f := range l.of(r.ID) {
			if f.State != Fail {
				continue
			}
			if first {
				p.put("<h2>What to do</h2>\n")
			}
			first = false
			p.put("<section class=\"todo\"><p class=\"finding broken\"><a href=\"#link-%v\"><strong>%v</strong></a> ", f.Check, f.Check)
			f.putAbout(p)
			p.put("<span>%v</span></p>\n", f.Message)
			f.putFix(p)
			p.put("</section>\n")
		}
	}
}

func (f Finding) putAbout(p *page) {
	if about := f.About.String(); about != "" {
		p.put("<span class=\"about\">%v: </span>", about)
	}
}

func (f Finding) putFix(p *page) {
	if f.Fix == nil {
		return
	}
	p.put("<div class=\"mend\"><p>→ %v</p>", f.Fix.Summary)
	for _, command := range f.Fix.Commands {
		p.put("<pre>%v</pre>", command)
	}
	p.put("</div>")
}

func (r Check) put(p *page, state State, findings []Finding) {
	p.put("<li class=\"rung %v\" id=\"link-%v\" data-link=\"%v\" data-state=\"%v\">\n", state, r.ID, r.ID, state)
	p.put("<span class=\"mark\" aria-label=\"%v\">%v</span><span class=\"name\">%v</span>\n", state, state.Mark(), r.ID)
	p.put("<div class=\"body\"><p class=\"asks\">%v</p>\n", r.Question)
	for _, f := range findings {
		p.put("<p class=\"finding %v\">", f.State)
		f.putAbout(p)
		p.put("<span class=\"what\">%v</span></p>\n", f.Message)
		f.putFix(p)
		p.put("\n")
	}
	p.put("</div></li>\n")
}

func (d diagram) put(p *page) {
	p.put("<svg class=\"%v\" viewBox=\"0 0 %v %v\" role=\"img\" aria-label=\"Sequence of the steps from policy to samples, each in the colour of its links\">\n", d.Class, d.Width, d.Height)
	for _, l := range d.Lanes {
		p.put("<line class=\"lane\" x1=\"%v\" y1=\"26\" x2=\"%v\" y2=\"%v\"/><text class=\"who\" x=\"%v\" y=\"14\" text-anchor=\"middle\">%v</text>\n", l.X, l.X, l.Bottom, l.X, l.Name)
	}
	for _, s := range d.Steps {
		p.put("<g class=\"%v\" data-step=\"%v\" data-state=\"%v\"><a href=\"#link-%v\"><title>%v</title>\n", s.State, s.Number, s.State, s.Link, s.Title)
		p.put("<circle class=\"dot\" cx=\"%v\" cy=\"%v\" r=\"9\"/><text class=\"number\" x=\"%v\" y=\"%v\" text-anchor=\"middle\">%v</text>\n", s.DotX, s.DotY, s.DotX, s.NumberY, s.Number)
		p.put("<text class=\"says\" x=\"%v\" y=\"%v\">%v</text>\n", s.TextX, s.TextY, s.Says)
		p.put("<line class=\"step\" x1=\"%v\" y1=\"%v\" x2=\"%v\" y2=\"%v\"/><polygon class=\"head\" points=\"%v\"/>\n", s.From, s.Y, s.To, s.Y, s.Head)
		if s.Cross != "" {
			p.put("<path class=\"cross\" d=\"%v\"/>", s.Cross)
		}
		p.put("</a></g>\n")
	}
	p.put("</svg>\n")
}

// lanes are who takes part, from left to right; short is for phones.
var lanes = []struct{ name, short string }{
	{"admin", "admin"}, {"sync", "sync"}, {"webhook", "webhook"}, {"Kubernetes", "API"}, {"Prometheus", "Prom."}, {"sidecar", "sidecar"}, {"AWS", "AWS"},
}

// steps are those of the README's diagram, with the links that each rests on.
var steps = []struct {
	from, to, says string
	links          []ID
}{
	{"admin", "Kubernetes", "policy, label on the namespace", []ID{Kubernetes, Policy, Namespace}},
	{"sync", "Kubernetes", "which service accounts are granted?", []ID{ServiceAccount, Grant, SyncLeads}},
	{"sync", "AWS", "OIDC provider, role, exact trust", []ID{Account, OIDCProvider, RoleExists, TrustDocument, Permissions, Boundary}},
	{"Kubernetes", "webhook", "a Prometheus pod is created", []ID{Registration, Endpoints, Certificate}},
	{"webhook", "Kubernetes", "patch: token, sidecar, environment", []ID{Injection}},
	{"Kubernetes", "Prometheus", "the kubelet starts the pod", []ID{Pods, Identity}},
	{"sidecar", "AWS", "the pod's own token, which AWS verifies", []ID{IssuerMatches, TokenMinted, SigningKeys}},
	{"AWS", "sidecar", "session credentials", []ID{Session}},
	{"sidecar", "Prometheus", "AWS profile, then remote_write", []ID{Sidecar}},
	{"Prometheus", "AWS", "signed remote_write", []ID{Workspace, Query, Write, Flow}},
}

type (
	diagram struct {
		Class         string
		Width, Height int
		Lanes         []lane
		Steps         []step
	}
	lane struct {
		Name      string
		X, Bottom int
	}
	step struct {
		Number                            int
		State                             State
		Link                              ID
		Says, Title                       string
		From, To, Y                       int
		DotX, DotY, NumberY, TextX, TextY int
		Head, Cross                       string
	}
)

// roomy is a width in which all names have room.
const roomy = 600

// diagram draws the sequence for a width, in CSS pixels: text stays as large as
// it is on any screen, and each step has its words above its arrow.
func (l Report) diagram(class string, width, height int) diagram {
	const top, edge = 34, 26
	d := diagram{Class: class, Width: width, Height: top + height*len(steps) + 4}
	x := map[string]int{}
	for i, who := range lanes {
		// The outer names need half their width.
		x[who.name] = edge + i*(width-2*edge)/(len(lanes)-1)
		shown := who.name
		if width < roomy {
			shown = who.short
		}
		d.Lanes = append(d.Lanes, lane{shown, x[who.name], d.Height})
	}
	for i, s := range steps {
		y := top + height*(i+1) - 10
		from, to := x[s.from], x[s.to]
		left := min(from, to)
		v := step{Number: i + 1, Says: s.says, From: from, To: to, Y: y}
		v.State, v.Link = l.worst(s.links)
		v.Title = fmt.Sprintf("%s: %s", v.Link, v.State)
		// Words begin where the arrow does, but must end on the page.
		v.DotX = min(left, width-edge-len(s.says)*7-18) + 9
		v.DotX = max(v.DotX, 9)
		v.DotY, v.NumberY = y-17, y-13
		v.TextX, v.TextY = v.DotX+15, y-12
		tip := 8
		if from > to {
			tip = -8
		}
		v.Head = fmt.Sprintf("%d,%d %d,%d %d,%d", to, y, to-tip, y-4, to-tip, y+4)
		v.To = to - tip/2
		if v.State == Fail {
			at := (from + to) / 2
			v.Cross = fmt.Sprintf("M%d %d L%d %d M%d %d L%d %d", at-5, y-5, at+5, y+5, at-5, y+5, at+5, y-5)
		}
		d.Steps = append(d.Steps, v)
	}
	return d
}

// worst is the state of several links together, and the link that has it: one
// that was not looked at for want of means says nothing, where others do.
func (l Report) worst(links []ID) (State, ID) {
	state, at := Skip, links[0]
	for _, link := range links {
		if s := l.State(link); s.worse(state) || state == Skip && s == Pass {
			state, at = s, link
		}
	}
	for _, link := range links {
		for _, f := range l.of(link) {
			if f.BlockedBy != "" && state == Pass {
				return Skip, link
			}
		}
	}
	return state, at
}
