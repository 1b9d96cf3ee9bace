package check

import (
	"fmt"
	"slices"
	"strings"
)

// Report is the outcome of an examination: findings in the chain's order.
type Report struct {
	// Cluster is the policy's name of the cluster; empty where it is not known.
	Cluster string `json:"cluster"`
	// Healthy: some link was checked, and none is broken. Warnings and links that
	// were not checked do not count: see [Report.Unchecked].
	Healthy  bool      `json:"healthy"`
	Findings []Finding `json:"findings"`
}

// Runner collects findings. The zero value is ready for use.
type Runner struct {
	Cluster  string
	findings []Finding
}

// Add takes findings.
func (e *Runner) Add(findings ...Finding) { e.findings = append(e.findings, findings...) }

// Has reports whether anything was found of the link.
func (e *Runner) Has(l ID) bool {
	return slices.ContainsFunc(e.findings, func(f Finding) bool { return f.Check == l })
}

// Blocked reports whether the link cannot be checked, because one that it needs
// is broken or was itself not checked for such a reason. If so that is added as a
// finding.
func (e *Runner) Blocked(l ID, a About) bool {
	for _, need := range checkOf(l).Needs {
		for _, f := range e.findings {
			if f.Check != need || !f.About.meets(a) {
				continue
			}
			cause := f.BlockedBy
			if f.State == Fail {
				cause = need
			}
			if cause != "" {
				e.Add(Finding{Check: l, State: Skip, About: a, BlockedBy: cause, Message: "not checked: it rests on " + string(cause)})
				return true
			}
		}
	}
	return false
}

// Skip adds that links are not checked: because of a broken one that they rest
// on, or else for the reason that is given.
func (e *Runner) Skip(a About, why string, links ...ID) {
	for _, l := range links {
		if !e.Blocked(l, a) {
			e.Add(Skipped(l, a, "%s", why))
		}
	}
}

// LeaveOut adds that links need not be checked.
func (e *Runner) LeaveOut(a About, why string, links ...ID) {
	for _, l := range links {
		if !e.Blocked(l, a) {
			e.Add(NotAsked(l, a, "%s", why))
		}
	}
}

// Prove turns what could not be checked of a link into a finding that it holds:
// a later check has proved it.
func (e *Runner) Prove(l ID, says string) {
	for i, f := range e.findings {
		if f.Check == l && f.State == Skip && f.BlockedBy == "" {
			e.findings[i] = Passed(l, f.About, "%s", says)
		}
	}
}

// Run adds what the probe finds, unless the link is blocked. It tells whether
// the link holds.
func (e *Runner) Run(l ID, a About, probe func() Finding) bool {
	if e.Blocked(l, a) {
		return false
	}
	f := probe()
	f.Check, f.About = l, a
	e.Add(f)
	return f.State == Pass || f.State == Warn
}

// Report is what was found.
func (e *Runner) Report() Report {
	l := Report{Cluster: e.Cluster, Findings: slices.Clone(e.findings)}
	slices.SortStableFunc(l.Findings, func(a, b Finding) int { return position(a.Check) - position(b.Check) })
	l.Healthy = len(l.Failed()) == 0 && slices.ContainsFunc(l.Findings, func(f Finding) bool { return f.State != Skip })
	return l
}

// Failed are the links that are, each once.
func (l Report) Failed() []ID {
	var links []ID
	for _, f := range l.Findings {
		if f.State == Fail && !slices.Contains(links, f.Check) {
			links = append(links, f.Check)
		}
	}
	return links
}

// Unchecked returns the links of which something was not checked, each once.
func (l Report) Unchecked() []ID {
	var links []ID
	for _, f := range l.Findings {
		if f.State == Skip && !f.NotAsked && !slices.Contains(links, f.Check) {
			links = append(links, f.Check)
		}
	}
	return links
}

// State is the worst of a link's findings; Skipped where there are none.
func (l Report) State(link ID) State {
	findings := l.of(link)
	if len(findings) == 0 {
		return Skip
	}
	worst := Pass
	for _, f := range findings {
		if f.State.worse(worst) {
			worst = f.State
		}
	}
	return worst
}

// Verdict sums it up in one sentence.
func (l Report) Verdict() string {
	doubtful, unchecked := 0, 0
	for _, f := range l.Findings {
		switch {
		case f.State == Warn:
			doubtful++
		case f.State == Skip && !f.NotAsked:
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
	broken := l.Failed()
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
