package check

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Report is the result of all checks: findings in the order of [All].
type Report struct {
	// Cluster is the policy's name of the cluster; empty: it is not known.
	Cluster string `json:"cluster"`
	// Healthy is true if a check ran and none failed. [Report.Unchecked] has the checks that were
	// skipped.
	Healthy  bool      `json:"healthy"`
	Findings []Finding `json:"findings"`
	Head     Head      `json:"run"`
}

// Head identifies a run of the checks by its time and what it checked. Empty members are not
// known.
type Head struct {
	Started time.Time `json:"started,omitzero"`
	// Seconds is how long the run took.
	Seconds float64 `json:"seconds"`
	// Context is the context of the kubeconfig.
	Context string `json:"context,omitempty"`
	// Require is the scope of the required checks; empty: all are required.
	Require Scope `json:"require,omitempty"`
	// PolicyRevision is the start of the SHA-256 of the policy's text.
	PolicyRevision string   `json:"policyRevision,omitempty"`
	Versions       Versions `json:"versions"`
}

// Versions are those of the programs that the checks saw.
type Versions struct {
	// Ampbridge is the version of the program that ran the checks.
	Ampbridge  string `json:"ampbridge,omitempty"`
	Kubernetes string `json:"kubernetes,omitempty"`
	// Sidecars and Prometheus are images, with the number of running pods of each.
	Sidecars   map[string]int `json:"sidecars,omitempty"`
	Prometheus map[string]int `json:"prometheus,omitempty"`
}

// Runner collects findings. The zero value is ready for use.
type Runner struct {
	Cluster string
	Head    Head
	// Added is called with each new finding; nil: nothing is called.
	Added    func(Finding)
	findings []Finding
}

// Add appends findings.
func (r *Runner) Add(findings ...Finding) {
	for _, f := range findings {
		r.lift(f)
		r.findings = append(r.findings, f)
	}
	if r.Added == nil {
		return
	}
	for _, f := range findings {
		r.Added(f)
	}
}

// lift turns earlier warnings and skipped checks into passes that a passed check proves.
func (r *Runner) lift(passed Finding) {
	if passed.Status != Pass {
		return
	}
	for i, f := range r.findings {
		if f.Proof == passed.ID && !f.Stays && (f.Status == Warn || f.Status == Skip) && f.About.overlaps(passed.About) {
			r.findings[i].Status, r.findings[i].Fix, r.findings[i].Proof = Pass, nil, ""
			r.findings[i].Message += fmt.Sprintf("; %s passes, which proves it", passed.ID)
		}
	}
}

// Doubt returns the warning that the check would turn into a pass; false: there is none.
func (r *Runner) Doubt(proof ID, a About) (Finding, bool) {
	for _, f := range r.findings {
		if f.Proof == proof && f.Status == Warn && f.About.overlaps(a) {
			return f, true
		}
	}
	return Finding{}, false
}

// Has reports whether there is a finding of the check.
func (r *Runner) Has(id ID) bool {
	return slices.ContainsFunc(r.findings, func(f Finding) bool { return f.ID == id })
}

// Blocked reports whether the check cannot run, because a check that it depends
// on failed or was itself blocked. If so, Blocked adds a finding that it was
// skipped.
func (r *Runner) Blocked(id ID, a About) bool {
	for _, need := range find(id).Needs {
		for _, f := range r.findings {
			if f.ID != need || !f.About.overlaps(a) {
				continue
			}
			cause := f.BlockedBy
			if f.Status == Fail {
				cause = need
			}
			if cause != "" {
				r.Add(BlockedBy(id, a, cause))
				return true
			}
		}
	}
	return false
}

// Skip adds findings of skipped checks. The findings have the reason, unless a check that they
// depend on failed.
func (r *Runner) Skip(a About, reason string, ids ...ID) {
	for _, id := range ids {
		if !r.Blocked(id, a) {
			r.Add(Skipped(id, a, "%s", reason))
		}
	}
}

// Exclude adds findings of checks that need not run.
func (r *Runner) Exclude(a About, reason string, ids ...ID) {
	for _, id := range ids {
		if !r.Blocked(id, a) {
			r.Add(Excluded(id, a, "%s", reason))
		}
	}
}

// Prove turns the skipped findings of a check about an object into passes, because a later
// check proved it. It leaves blocked findings.
func (r *Runner) Prove(id ID, a About, message string) {
	for i, f := range r.findings {
		if f.ID == id && f.Status == Skip && f.BlockedBy == "" && f.About.overlaps(a) {
			r.findings[i] = Passed(id, f.About, "%s", message)
		}
	}
}

// Run calls the probe and adds its finding, unless the check is blocked. It
// reports whether the check passed, with or without a warning.
func (r *Runner) Run(id ID, a About, probe func() Finding) bool {
	if r.Blocked(id, a) {
		return false
	}
	f := probe()
	f.ID, f.About = id, a
	r.Add(f)
	return f.Status == Pass || f.Status == Warn
}

// Complete adds a skipped finding for every check without a finding, so that a report never
// looks better because a check is missing.
func (r *Runner) Complete(reason string) {
	for _, c := range All {
		if !r.Has(c.ID) {
			r.Skip(About{}, reason, c.ID)
		}
	}
}

// Report returns the findings so far.
func (r *Runner) Report() Report {
	report := Report{Cluster: r.Cluster, Head: r.Head, Findings: slices.Clone(r.findings)}
	slices.SortStableFunc(report.Findings, func(a, b Finding) int { return position(a.ID) - position(b.ID) })
	report.Healthy = len(report.Failed()) == 0 &&
		slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Status != Skip })
	return report
}

// Of returns the findings of a check.
func (r Report) Of(id ID) []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if f.ID == id {
			list = append(list, f)
		}
	}
	return list
}

// Failed returns the checks that failed, each once.
func (r Report) Failed() []ID {
	return r.ids(func(f Finding) bool { return f.Status == Fail })
}

// Unchecked returns the checks with a finding that was skipped and not excluded,
// each once.
func (r Report) Unchecked() []ID {
	return r.ids(func(f Finding) bool { return f.Status == Skip && !f.Excluded })
}

// Missing returns the unchecked checks that are required.
func (r Report) Missing() []ID {
	return slices.DeleteFunc(r.Unchecked(), func(id ID) bool { return !r.Head.requires(id) })
}

// Optional returns the unchecked checks that are not required.
func (r Report) Optional() []ID {
	return slices.DeleteFunc(r.Unchecked(), r.Head.requires)
}

// requires reports whether the check is required.
func (h Head) requires(id ID) bool {
	return h.Require == "" || h.Require == ScopeAll || find(id).Scope == h.Require
}

// ids returns the checks with a finding that matches, each once.
func (r Report) ids(match func(Finding) bool) []ID {
	var ids []ID
	for _, f := range r.Findings {
		if match(f) && !slices.Contains(ids, f.ID) {
			ids = append(ids, f.ID)
		}
	}
	return ids
}

// Status returns the worst status of a check's findings; [Skip] if there are none.
func (r Report) Status(id ID) Status {
	findings := r.Of(id)
	if len(findings) == 0 {
		return Skip
	}
	worst := Pass
	for _, f := range findings {
		if f.Status.Worse(worst) {
			worst = f.Status
		}
	}
	return worst
}

// Counts are the results of a report. Each check counts once: as failed if one
// of its findings failed, else as skipped if one of them was skipped and not
// excluded, else as warned or passed. Excluded checks, and skipped ones that are not required,
// do not count.
type Counts struct {
	Passed, Warned, Skipped int
	// Failed lists the checks that failed.
	Failed []ID
}

// Counts returns the results of the report.
func (r Report) Counts() Counts {
	c := Counts{Failed: r.Failed()}
	missing, optional := r.Missing(), r.Optional()
	for _, known := range All {
		switch {
		case slices.Contains(c.Failed, known.ID), slices.Contains(optional, known.ID):
		case slices.Contains(missing, known.ID):
			c.Skipped++
		case r.Status(known.ID) == Warn:
			c.Warned++
		case slices.ContainsFunc(r.Of(known.ID), func(f Finding) bool { return f.Status == Pass }):
			c.Passed++
		}
	}
	return c
}

// Summary returns the results in one line, such as "12 checks passed, 1 failed
// (trust), 1 warning, 6 skipped".
func (r Report) Summary() string { return r.Counts().String() }

func (c Counts) String() string {
	parts := []string{count(c.Passed, "check") + " passed"}
	if n := len(c.Failed); n > 0 {
		parts = append(parts, fmt.Sprintf("%d failed (%s)", n, Join(c.Failed)))
	}
	if c.Warned > 0 {
		parts = append(parts, count(c.Warned, "warning"))
	}
	if c.Skipped > 0 {
		parts = append(parts, fmt.Sprintf("%d skipped", c.Skipped))
	}
	return strings.Join(parts, ", ")
}

// Join returns the IDs, separated by commas.
func Join(ids []ID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ", ")
}

// JoinFew returns the first IDs, and the number of the others.
func JoinFew(ids []ID) string {
	const shown = 6
	if len(ids) <= shown+1 {
		return Join(ids)
	}
	return fmt.Sprintf("%s and %d more", Join(ids[:shown]), len(ids)-shown)
}
