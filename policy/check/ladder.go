package check

import (
	"fmt"
	"slices"
	"strings"
)

// Ladder is the outcome of an examination: findings in the chain's order.
type Ladder struct {
	// Cluster is the policy's name of the cluster; empty where it is not known.
	Cluster string `json:"cluster"`
	// Healthy: some link was checked, and none is broken. Warnings and links that
	// were not checked do not count: see [Ladder.Unchecked].
	Healthy  bool      `json:"healthy"`
	Findings []Finding `json:"findings"`
}

// Examination collects findings. The zero value is ready for use.
type Examination struct {
	Cluster  string
	findings []Finding
}

// Add takes findings.
func (e *Examination) Add(findings ...Finding) { e.findings = append(e.findings, findings...) }

// Has reports whether anything was found of the link.
func (e *Examination) Has(l Link) bool {
	return slices.ContainsFunc(e.findings, func(f Finding) bool { return f.Link == l })
}

// Blocked reports whether the link cannot be checked, because one that it needs
// is broken or was itself not checked for such a reason. If so that is added as a
// finding.
func (e *Examination) Blocked(l Link, a About) bool {
	for _, need := range rung(l).Needs {
		for _, f := range e.findings {
			if f.Link != need || !f.About.meets(a) {
				continue
			}
			cause := f.Because
			if f.State == Broken {
				cause = need
			}
			if cause != "" {
				e.Add(Finding{Link: l, State: Skipped, About: a, Because: cause, Says: "not checked: it rests on " + string(cause)})
				return true
			}
		}
	}
	return false
}

// Leave adds that links are not checked: because of a broken one that they rest
// on, or else for the reason that is given.
func (e *Examination) Leave(a About, why string, links ...Link) {
	for _, l := range links {
		if !e.Blocked(l, a) {
			e.Add(Unseen(l, a, "%s", why))
		}
	}
}

// LeaveOut adds that links need not be checked.
func (e *Examination) LeaveOut(a About, why string, links ...Link) {
	for _, l := range links {
		if !e.Blocked(l, a) {
			e.Add(NotAsked(l, a, "%s", why))
		}
	}
}

// Prove turns what could not be checked of a link into a finding that it holds:
// a later check has proved it.
func (e *Examination) Prove(l Link, says string) {
	for i, f := range e.findings {
		if f.Link == l && f.State == Skipped && f.Because == "" {
			e.findings[i] = Holds(l, f.About, "%s", says)
		}
	}
}

// Look adds what the probe finds, unless the link is blocked. It tells whether
// the link holds.
func (e *Examination) Look(l Link, a About, probe func() Finding) bool {
	if e.Blocked(l, a) {
		return false
	}
	f := probe()
	f.Link, f.About = l, a
	e.Add(f)
	return f.State == OK || f.State == Doubtful
}

// Ladder is what was found.
func (e *Examination) Ladder() Ladder {
	l := Ladder{Cluster: e.Cluster, Findings: slices.Clone(e.findings)}
	slices.SortStableFunc(l.Findings, func(a, b Finding) int { return place(a.Link) - place(b.Link) })
	l.Healthy = len(l.Broken()) == 0 && slices.ContainsFunc(l.Findings, func(f Finding) bool { return f.State != Skipped })
	return l
}

// Broken are the links that are, each once.
func (l Ladder) Broken() []Link {
	var links []Link
	for _, f := range l.Findings {
		if f.State == Broken && !slices.Contains(links, f.Link) {
			links = append(links, f.Link)
		}
	}
	return links
}

// Unchecked returns the links of which something was not checked, each once.
func (l Ladder) Unchecked() []Link {
	var links []Link
	for _, f := range l.Findings {
		if f.State == Skipped && !f.NotAsked && !slices.Contains(links, f.Link) {
			links = append(links, f.Link)
		}
	}
	return links
}

// State is the worst of a link's findings; Skipped where there are none.
func (l Ladder) State(link Link) State {
	findings := l.of(link)
	if len(findings) == 0 {
		return Skipped
	}
	worst := OK
	for _, f := range findings {
		if f.State.worse(worst) {
			worst = f.State
		}
	}
	return worst
}

// Verdict sums it up in one sentence.
func (l Ladder) Verdict() string {
	doubtful, unchecked := 0, 0
	for _, f := range l.Findings {
		switch {
		case f.State == Doubtful:
			doubtful++
		case f.State == Skipped && !f.NotAsked:
			unchecked++
		}
	}
	var rest []string
	if doubtful > 0 {
		rest = append(rest, fmt.Sprintf("%d doubtful", doubtful))
	}
	if unchecked > 0 {
		rest = append(rest, fmt.Sprintf("%d not checked", unchecked))
	}
	tail := ""
	if len(rest) > 0 {
		tail = " (" + strings.Join(rest, ", ") + ")"
	}
	broken := l.Broken()
	switch len(broken) {
	case 0:
		switch {
		case !l.Healthy:
			return "nothing could be checked" + tail
		case unchecked == 0:
			return "every link holds" + tail
		}
		return "every link that was checked holds" + tail
	case 1:
		return "1 link is broken: " + string(broken[0]) + tail
	}
	names := make([]string, len(broken))
	for i, b := range broken {
		names[i] = string(b)
	}
	return fmt.Sprintf("%d links are broken: %s%s", len(names), strings.Join(names, ", "), tail)
}
