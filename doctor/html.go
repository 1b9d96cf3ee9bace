package doctor

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
)

//go:embed page.tmpl
var pageText string

var page = template.Must(template.New("page").Parse(pageText))

// HTML writes the ladder as one page that needs nothing else: no script, no
// network. It begins with the sequence of the steps, in the colours of their
// links.
func (l Ladder) HTML(w io.Writer) error {
	headline, rest, _ := strings.Cut(strings.TrimSuffix(l.Verdict(), ")"), " (")
	view := struct {
		Cluster        string
		Healthy        bool
		Headline, Rest string
		// Todo are the broken links, again: nobody should have to look for them.
		Todo     []Finding
		Diagrams []diagram
		Rungs    []rungView
	}{
		Cluster: l.Cluster, Healthy: l.Healthy, Rest: rest,
		Headline: strings.ToUpper(headline[:1]) + headline[1:],
		Diagrams: []diagram{l.diagram("wide", 1000, 46), l.diagram("narrow", 350, 46)},
	}
	for _, r := range Chain {
		findings := l.of(r.Link)
		for _, f := range findings {
			if f.State == Broken {
				view.Todo = append(view.Todo, f)
			}
		}
		if len(findings) > 0 {
			view.Rungs = append(view.Rungs, rungView{r, l.State(r.Link), findings})
		}
	}
	return page.Execute(w, view)
}

// rungView is a rung of the page.
type rungView struct {
	Rung
	State    State
	Findings []Finding
}

// Mark is that of the state.
func (r rungView) Mark() string { return r.State.Mark() }

// lanes are who takes part, from left to right; short is for phones.
var lanes = []struct{ name, short string }{
	{"admin", "admin"}, {"sync", "sync"}, {"webhook", "webhook"}, {"Kubernetes", "API"}, {"Prometheus", "Prom."}, {"sidecar", "sidecar"}, {"AWS", "AWS"},
}

// steps are those of the README's diagram, with the links that each rests on.
var steps = []struct {
	from, to, says string
	links          []Link
}{
	{"admin", "Kubernetes", "policy, label on the namespace", []Link{Kubernetes, Policy, Namespace}},
	{"sync", "Kubernetes", "which service accounts are granted?", []Link{ServiceAccount, Grant}},
	{"sync", "AWS", "OIDC provider, role, exact trust", []Link{Account, OIDCProvider, RoleExists, TrustDocument, Permissions, Boundary}},
	{"Kubernetes", "webhook", "a Prometheus pod is created", []Link{Registration, Endpoints, Certificate}},
	{"webhook", "Kubernetes", "patch: token, sidecar, environment", []Link{Injection}},
	{"Kubernetes", "Prometheus", "the kubelet starts the pod", []Link{Pods, Identity}},
	{"sidecar", "AWS", "the pod's own token, which AWS verifies", []Link{IssuerMatches, TokenMinted, SigningKeys}},
	{"AWS", "sidecar", "session credentials", []Link{Session}},
	{"sidecar", "Prometheus", "AWS profile, then remote_write", []Link{Sidecar}},
	{"Prometheus", "AWS", "signed remote_write", []Link{Workspace, Query, Write, Flow}},
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
		Link                              Link
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
func (l Ladder) diagram(class string, width, height int) diagram {
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
		if v.State == Broken {
			at := (from + to) / 2
			v.Cross = fmt.Sprintf("M%d %d L%d %d M%d %d L%d %d", at-5, y-5, at+5, y+5, at-5, y+5, at+5, y-5)
		}
		d.Steps = append(d.Steps, v)
	}
	return d
}

// worst is the state of several links together, and the link that has it: one
// that was not looked at for want of means says nothing, where others do.
func (l Ladder) worst(links []Link) (State, Link) {
	state, at := Skipped, links[0]
	for _, link := range links {
		if s := l.State(link); s.worse(state) || state == Skipped && s == OK {
			state, at = s, link
		}
	}
	for _, link := range links {
		for _, f := range l.of(link) {
			if f.Because != "" && state == OK {
				return Skipped, link
			}
		}
	}
	return state, at
}
