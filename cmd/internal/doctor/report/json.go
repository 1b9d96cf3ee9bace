package report

import (
	"encoding/json"
	"io"

	"github.com/ampbridge/ampbridge/policy/check"
)

// version is the version of the JSON format. Fields are added, never changed,
// while it stays the same.
const version = 1

// document is the JSON output.
type document struct {
	Version    int        `json:"version"`
	Verdict    string     `json:"verdict"`
	Summary    string     `json:"summary"`
	Failed     []check.ID `json:"failed"`
	NotChecked []check.ID `json:"notChecked"`
	Cluster    string     `json:"cluster"`
	Healthy    bool       `json:"healthy"`
	Run        check.Head `json:"run"`
	Findings   []finding  `json:"findings"`
}

// finding is a finding with the question of its check.
type finding struct {
	ID       check.ID `json:"id"` // before the question
	Question string   `json:"question"`
	check.Finding
}

// JSON writes the report for programs.
func JSON(w io.Writer, r check.Report) error {
	questions := map[check.ID]string{}
	for _, c := range check.All {
		questions[c.ID] = c.Question
	}
	d := document{
		Version: version, Verdict: newVerdict(r).String(), Summary: r.Summary(),
		// An empty list, not null.
		Failed: append([]check.ID{}, r.Failed()...), NotChecked: append([]check.ID{}, r.Unchecked()...),
		Cluster: r.Cluster, Healthy: r.Healthy, Run: r.Head, Findings: make([]finding, len(r.Findings)),
	}
	for i, f := range r.Findings {
		d.Findings[i] = finding{f.ID, questions[f.ID], f}
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(d)
}
