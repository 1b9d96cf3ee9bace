package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy/check"
)

// overall returns the status of the whole report.
func overall(r check.Report) check.Status {
	switch counts := r.Counts(); {
	case len(counts.Failed) > 0:
		return check.Fail
	case counts.Skipped > 0 || counts.Passed+counts.Warned == 0:
		return check.Skip
	case counts.Warned > 0:
		return check.Warn
	}
	return check.Pass
}

// verdict is the report in one line: what failed, and how much passed. The first fix is a
// sentence of its own.
type verdict struct {
	status check.Status
	// headline names what failed or was not checked.
	headline string
	// rest counts the other results; empty: there are none.
	rest string
	// fix is the first thing to do; empty: nothing.
	fix string
}

func newVerdict(r check.Report) verdict {
	counts := r.Counts()
	v := verdict{status: overall(r)}
	passed := plural(counts.Passed, "check") + " passed"
	warned := ""
	if counts.Warned > 0 {
		warned = fmt.Sprintf("%s (%s)", plural(counts.Warned, "warning"), check.Join(warnings(r)))
	}
	skipped := ""
	if counts.Skipped > 0 {
		skipped = fmt.Sprintf("%d skipped", counts.Skipped)
	}
	v.fix = firstFix(r, v.status)
	switch {
	case len(r.Findings) == 0:
		v.headline, v.fix = "Nothing was checked", ""
	case unreached(counts):
		v.headline = "Nothing could be checked: " + r.Findings[0].Message
		if r.Findings[0].Fix == nil {
			v.fix = ""
		}
	case v.status == check.Fail:
		v.headline = plural(len(counts.Failed), "check") + " failed: " + check.Join(counts.Failed)
		v.rest = sentence(fmt.Sprintf("%d passed", counts.Passed), warned, skipped)
	case policyUnread(r):
		v.headline = fmt.Sprintf("No check failed, but %s skipped: %s", were(len(r.Unchecked())), r.Of(check.Policy)[0].Message)
		v.rest = sentence(passed, warned)
	case v.status == check.Skip:
		v.headline = "No check failed, but " + notChecked(r, r.Missing(), "")
		v.rest = sentence(passed, warned)
	default:
		v.headline, v.rest = passed, warned
	}
	if optional := r.Optional(); len(optional) > 0 && !unreached(counts) && !policyUnread(r) {
		v.rest = sentence(v.rest, notChecked(r, optional, fmt.Sprintf(" (--require %s)", r.Head.Require)))
	}
	return v
}

// unreached reports whether no check has a result, except that the API server cannot be
// reached. Then every other check was skipped for that reason.
func unreached(c check.Counts) bool {
	return c.Passed+c.Warned == 0 && (len(c.Failed) == 0 || slices.Equal(c.Failed, []check.ID{check.Kubernetes}))
}

// sides are the systems that doctor reads, each with the check that reaches it first.
var sides = []struct {
	name  string
	root  check.ID
	scope check.Scope
}{
	{"the cluster", check.Kubernetes, check.ScopeCluster},
	{"AWS", check.Account, check.ScopeAWS},
}

// policyUnread reports whether no check failed, and most were skipped because the
// cluster answers and does not show its policy.
func policyUnread(r check.Report) bool {
	return len(r.Failed()) == 0 && slices.Contains(r.Unchecked(), check.Policy) && reached(r, check.Kubernetes)
}

// notChecked describes the skipped checks. A side that was not reached stands for its checks.
// why is a text in parentheses; empty: the reason of the finding.
func notChecked(r check.Report, ids []check.ID, why string) string {
	var parts []string
	for _, side := range sides {
		if !slices.Contains(ids, side.root) || reached(r, side.root) {
			continue
		}
		ids = slices.DeleteFunc(ids, func(id check.ID) bool {
			scope := check.ScopeOf(id)
			return scope == side.scope || scope == check.ScopeAll
		})
		parts = append(parts, side.name+" was not checked"+cmp.Or(why, " ("+r.Of(side.root)[0].Message+")"))
	}
	if len(ids) > 0 {
		parts = append(parts, were(len(ids))+" skipped: "+check.JoinFew(ids)+why)
	}
	return strings.Join(parts, ", and ")
}

// reached reports whether a check has a result for one of its objects.
func reached(r check.Report, id check.ID) bool {
	return slices.ContainsFunc(r.Of(id), func(f check.Finding) bool { return f.Status == check.Pass || f.Status == check.Warn })
}

// String returns the verdict as one line.
func (v verdict) String() string {
	text := v.headline
	if v.rest != "" {
		text += "; " + v.rest
	}
	if v.fix != "" {
		text += ". " + v.fix
	}
	return text
}

// firstFix returns what to do first about a report with the status.
func firstFix(r check.Report, status check.Status) string {
	optional := r.Optional()
	for _, f := range r.Findings {
		switch {
		case f.Status != status || f.Excluded || slices.Contains(optional, f.ID):
		case f.Fix != nil:
			return "First fix: " + f.Fix.Summary
		case status == check.Skip:
			return fmt.Sprintf("First reason: %s: %s", f.ID, f.Message)
		}
	}
	return ""
}

// warnings returns the checks that count as warnings.
func warnings(r check.Report) []check.ID {
	var ids []check.ID
	unchecked := r.Unchecked()
	for _, c := range check.All {
		if r.Status(c.ID) == check.Warn && !slices.Contains(unchecked, c.ID) {
			ids = append(ids, c.ID)
		}
	}
	return ids
}

// sentence joins the parts that are not empty with commas.
func sentence(parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(part string) bool { return part == "" }), ", ")
}

func were(n int) string {
	if n == 1 {
		return "1 was"
	}
	return fmt.Sprintf("%d were", n)
}

// plural returns a number with its noun.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// row is a line of the head of a report.
type row struct{ name, value string }

// headRows returns the head of a report: what was checked, with which versions, and when.
// What is not known is left out.
func headRows(r check.Report) []row {
	var rows []row
	add := func(name string, value string) {
		if value != "" {
			rows = append(rows, row{name, value})
		}
	}
	add("cluster", r.Cluster)
	add("context", r.Head.Context)
	if r.Head.PolicyRevision != "" {
		add("policy", "revision "+r.Head.PolicyRevision)
	}
	v := r.Head.Versions
	add("ampbridge", v.Ampbridge)
	add("Kubernetes", v.Kubernetes)
	add("sidecars", images(v.Sidecars))
	add("Prometheus", images(v.Prometheus))
	if started := r.Head.Started; !started.IsZero() {
		add("started", fmt.Sprintf("%s, took %.1f s", started.UTC().Format(time.DateTime+" UTC"), r.Head.Seconds))
	}
	return rows
}

// images lists images with the number of their pods.
func images(counts map[string]int) string {
	var list []string
	for _, image := range slices.Sorted(maps.Keys(counts)) {
		list = append(list, fmt.Sprintf("%s (%s)", image, plural(counts[image], "pod")))
	}
	return strings.Join(list, ", ")
}
