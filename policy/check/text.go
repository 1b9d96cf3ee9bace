package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Text writes the ladder for people: a line for each finding, the mend under
// each that needs one.
func (l Report) Text(w io.Writer) error {
	var b bytes.Buffer
	width := 0
	for _, r := range Chain {
		width = max(width, len(r.ID))
	}
	indent := strings.Repeat(" ", width+4)
	for _, r := range Chain {
		findings := l.of(r.ID)
		if held := held(findings); len(held) > few {
			fmt.Fprintf(&b, "%s %-*s  %d hold, the first of them for %s\n", Pass.Mark(), width, r.ID, len(held), held[0].About)
			findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.State == Pass })
		}
		for _, f := range findings {
			about := f.About.String()
			if about != "" {
				about += ": "
			}
			fmt.Fprintf(&b, "%s %-*s  %s%s\n", f.State.Mark(), width, f.Check, about, f.Message)
			if f.Fix == nil {
				continue
			}
			fmt.Fprintf(&b, "%s→ %s\n", indent, f.Fix.Summary)
			for _, c := range f.Fix.Commands {
				fmt.Fprintf(&b, "%s  $ %s\n", indent, c)
			}
		}
	}
	fmt.Fprintf(&b, "\n%s\n", l.Verdict())
	_, err := w.Write(b.Bytes())
	return err
}

// few is how many findings of a link that hold are each worth a line.
const few = 3

func held(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.State != Pass })
}

// JSON writes the ladder for programs.
func (l Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Version    int    `json:"version"`
		Verdict    string `json:"verdict"`
		Broken     []ID   `json:"broken"`
		NotChecked []ID   `json:"notChecked"`
		Report
	}{1, l.Verdict(), append([]ID{}, l.Failed()...), append([]ID{}, l.Unchecked()...), l})
}

// of are the findings of a link.
func (l Report) of(link ID) []Finding {
	var list []Finding
	for _, f := range l.Findings {
		if f.Check == link {
			list = append(list, f)
		}
	}
	return list
}
