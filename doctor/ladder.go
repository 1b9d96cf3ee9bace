package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// Ladder is the outcome of an examination: findings in the chain's order.
type Ladder struct {
	// Cluster is the policy's name of the cluster; empty where it is not known.
	Cluster string `json:"cluster"`
	// Healthy: some link was looked at, and none is broken. Doubts and skipped
	// links do not count.
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

// Has tells whether anything was found of the link.
func (e *Examination) Has(l Link) bool {
	return slices.ContainsFunc(e.findings, func(f Finding) bool { return f.Link == l })
}

// Blocked tells whether the link cannot be looked at, because one that it needs
// is broken or was itself not looked at for such a reason. If so that is added
// as a finding.
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
				e.Add(Finding{Link: l, State: Skipped, About: a, Because: cause, Says: "not looked at: it rests on " + string(cause)})
				return true
			}
		}
	}
	return false
}

// Leave adds that links are not looked at: because of a broken one that they
// rest on, or else for the reason that is given.
func (e *Examination) Leave(a About, why string, links ...Link) {
	for _, l := range links {
		if !e.Blocked(l, a) {
			e.Add(Unseen(l, a, "%s", why))
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
	count := map[State]int{}
	for _, f := range l.Findings {
		count[f.State]++
	}
	var rest []string
	for _, s := range []struct {
		state State
		words string
	}{{Doubtful, "doubtful"}, {Skipped, "not looked at"}} {
		if n := count[s.state]; n > 0 {
			rest = append(rest, fmt.Sprintf("%d %s", n, s.words))
		}
	}
	tail := ""
	if len(rest) > 0 {
		tail = " (" + strings.Join(rest, ", ") + ")"
	}
	broken := l.Broken()
	switch len(broken) {
	case 0:
		if count[Skipped] == len(l.Findings) {
			return "nothing could be looked at"
		}
		if count[Skipped] == 0 {
			return "every link holds" + tail
		}
		return "every link that was looked at holds" + tail
	case 1:
		return "1 link is broken: " + string(broken[0]) + tail
	}
	names := make([]string, len(broken))
	for i, b := range broken {
		names[i] = string(b)
	}
	return fmt.Sprintf("%d links are broken: %s%s", len(names), strings.Join(names, ", "), tail)
}
