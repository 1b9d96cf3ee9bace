package report

import (
	"fmt"

	"github.com/ampbridge/ampbridge/policy/check"
)

// lanes are the participants, from left to right; short is the name on a narrow page.
var lanes = []struct{ name, short string }{
	{"admin", "admin"},
	{"sync", "sync"},
	{"webhook", "webhook"},
	{"Kubernetes", "API"},
	{"Prometheus", "Prom."},
	{"sidecar", "sidecar"},
	{"AWS", "AWS"},
}

// steps are those of the diagram in the README, with the checks of each.
var steps = []struct {
	from, to, label string
	checks          []check.ID
}{
	{"admin", "Kubernetes", "policy, label on the namespace", []check.ID{check.Kubernetes, check.Policy, check.Namespace}},
	{"sync", "Kubernetes", "which service accounts are granted?", []check.ID{
		check.ServiceAccount, check.Grant, check.SyncLeads,
	}},
	{"sync", "AWS", "OIDC provider, role, exact trust", []check.ID{
		check.Account, check.OIDCProvider, check.RoleExists, check.TrustDocument, check.Permissions, check.Boundary,
	}},
	{"Kubernetes", "webhook", "a Prometheus pod is created", []check.ID{
		check.Registration, check.Endpoints, check.Certificate,
	}},
	{"webhook", "Kubernetes", "patch: token, sidecar, environment", []check.ID{check.Injection}},
	{"Kubernetes", "Prometheus", "the kubelet starts the pod", []check.ID{check.Pods, check.Identity}},
	{"sidecar", "AWS", "the pod's own token, which AWS verifies", []check.ID{
		check.IssuerMatches, check.TokenMinted, check.SigningKeys,
	}},
	{"AWS", "sidecar", "session credentials", []check.ID{check.Session}},
	{"sidecar", "Prometheus", "AWS profile, then remote_write", []check.ID{check.Sidecar}},
	{"Prometheus", "AWS", "signed remote_write", []check.ID{
		check.Workspace, check.Query, check.Write, check.Read, check.Flow,
	}},
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
		Status                            check.Status
		Check                             check.ID
		Label, Title                      string
		From, To, Y                       int
		DotX, DotY, NumberY, TextX, TextY int
		Head, Cross                       string
	}
)

// fullNamesWidth is the smallest width with space for the full names.
const fullNamesWidth = 600

// newDiagram draws the sequence for a width, in CSS pixels. The size of the text is
// fixed, and the label of each step is above its arrow.
func newDiagram(r check.Report, class string, width, height int) diagram {
	// glyph is the mean width of a bold letter of a label, in the widest of the usual fonts.
	const top, edge, glyph = 34, 26, 8
	d := diagram{Class: class, Width: width, Height: top + height*len(steps) + 4}
	x := map[string]int{}
	for i, l := range lanes {
		// The outer names need half their width.
		x[l.name] = edge + i*(width-2*edge)/(len(lanes)-1)
		shown := l.name
		if width < fullNamesWidth {
			shown = l.short
		}
		d.Lanes = append(d.Lanes, lane{shown, x[l.name], d.Height})
	}
	for i, s := range steps {
		y := top + height*(i+1) - 10
		from, to := x[s.from], x[s.to]
		left := min(from, to)
		v := step{Number: i + 1, Label: s.label, From: from, To: to, Y: y}
		v.Status, v.Check = worst(r, s.checks)
		v.Title = fmt.Sprintf("%s: %s", v.Check, v.Status)
		// The label begins where the arrow begins, but must end on the page.
		v.DotX = min(left, width-edge-len(s.label)*glyph-18) + 9
		v.DotX = max(v.DotX, 9)
		v.DotY, v.NumberY = y-17, y-13
		v.TextX, v.TextY = v.DotX+15, y-12
		tip := 8
		if from > to {
			tip = -8
		}
		v.Head = fmt.Sprintf("%d,%d %d,%d %d,%d", to, y, to-tip, y-4, to-tip, y+4)
		v.To = to - tip/2
		if v.Status == check.Fail {
			at := (from + to) / 2
			v.Cross = fmt.Sprintf("M%d %d L%d %d M%d %d L%d %d", at-5, y-5, at+5, y+5, at-5, y+5, at+5, y-5)
		}
		d.Steps = append(d.Steps, v)
	}
	return d
}

// worst returns the status of several checks together, and the check that has it.
// A skipped check does not count if another one passed, unless it was skipped
// because a check that it depends on failed.
func worst(r check.Report, ids []check.ID) (check.Status, check.ID) {
	status, at := check.Skip, ids[0]
	for _, id := range ids {
		if s := r.Status(id); s.Worse(status) || status == check.Skip && s == check.Pass {
			status, at = s, id
		}
	}
	for _, id := range ids {
		for _, f := range r.Of(id) {
			if f.BlockedBy != "" && status == check.Pass {
				return check.Skip, id
			}
		}
	}
	return status, at
}
