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
func (l Ladder) Text(w io.Writer) error {
	var b bytes.Buffer
	width := 0
	for _, r := range Chain {
		width = max(width, len(r.Link))
	}
	indent := strings.Repeat(" ", width+4)
	for _, r := range Chain {
		findings := l.of(r.Link)
		if held := held(findings); len(held) > few {
			fmt.Fprintf(&b, "%s %-*s  %d hold, the first of them for %s\n", OK.Mark(), width, r.Link, len(held), held[0].About)
			findings = slices.DeleteFunc(findings, func(f Finding) bool { return f.State == OK })
		}
		for _, f := range findings {
			about := f.About.String()
			if about != "" {
				about += ": "
			}
			fmt.Fprintf(&b, "%s %-*s  %s%s\n", f.State.Mark(), width, f.Link, about, f.Says)
			if f.Mend == nil {
				continue
			}
			fmt.Fprintf(&b, "%s→ %s\n", indent, f.Mend.Do)
			for _, c := range f.Mend.Commands {
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
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.State != OK })
}

// JSON writes the ladder for programs.
func (l Ladder) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Version    int    `json:"version"`
		Verdict    string `json:"verdict"`
		Broken     []Link `json:"broken"`
		NotChecked []Link `json:"notChecked"`
		Ladder
	}{1, l.Verdict(), append([]Link{}, l.Broken()...), append([]Link{}, l.Unchecked()...), l})
}

// of are the findings of a link.
func (l Ladder) of(link Link) []Finding {
	var list []Finding
	for _, f := range l.Findings {
		if f.Link == link {
			list = append(list, f)
		}
	}
	return list
}
