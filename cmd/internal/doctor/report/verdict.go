package report

import (
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
	// headline names what failed, or what keeps the report from being a success.
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
		warned = fmt.Sprintf("%s (%s)", plural(counts.Warned, "warning"), join(warnings(r)))
	}
	skipped := ""
	if counts.Skipped > 0 {
		skipped = fmt.Sprintf("%d skipped", counts.Skipped)
	}
	switch v.status {
	case check.Fail:
		v.headline = plural(len(counts.Failed), "check") + " failed: " + join(counts.Failed)
		v.rest = sentence(fmt.Sprintf("%d passed", counts.Passed), warned, skipped)
	case check.Skip:
		v.headline = fmt.Sprintf("No check failed, but %s skipped: %s", were(counts.Skipped), join(r.Unchecked()))
		v.rest = sentence(passed, warned)
		if len(r.Findings) == 0 {
			v.headline, v.rest = "Nothing was checked", ""
		}
	default:
		v.headline, v.rest = passed, warned
	}
	v.fix = firstFix(r, v.status)
	return v
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
	for _, f := range r.Findings {
		switch {
		case f.Status != status || f.Excluded:
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

// join returns the IDs, separated by commas.
func join(ids []check.ID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = string(id)
	}
	return strings.Join(names, ", ")
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
