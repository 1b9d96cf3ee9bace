package plan

import (
	"fmt"
	"strings"
)

// String returns the plan as text: + creates, ~ changes, - deletes, and ! is a refusal. A line
// about what others have added begins with "drift", and a note with "note".
func (p Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s, issuer %s, owner %s\n", p.Cluster, p.Issuer, p.Owner)
	account := ""
	for _, c := range p.Changes {
		if c.Account != account {
			account = c.Account
			fmt.Fprintf(&b, "\naccount %s\n", account)
		}
		fmt.Fprintf(&b, "%s %s %s\n    # %s\n", c.sign(), c.Call, c.Resource.Resource, c.Reason)
		for _, d := range c.Differences {
			b.WriteString("    " + d.String() + "\n")
		}
	}
	if len(p.Refusals)+len(p.Drift)+len(p.Notes) > 0 {
		b.WriteByte('\n')
	}
	for _, f := range p.Refusals {
		fmt.Fprintf(&b, "! refused: %s: %s\n", f.About, f.Message)
	}
	for _, f := range p.Drift {
		fmt.Fprintf(&b, "drift: %s: %s\n", f.About, f.Message)
	}
	for _, f := range p.Notes {
		fmt.Fprintf(&b, "note: %s: %s\n", f.About, f.Message)
	}
	b.WriteString("\n" + p.Summary() + "\n")
	return b.String()
}

// Summary returns the number of changes and refusals in one line.
func (p Plan) Summary() string {
	creates, deletes := 0, 0
	for _, c := range p.Changes {
		if c.Call.Creates() {
			creates++
		}
		if c.Call.Deletes() {
			deletes++
		}
	}
	if deletes > 0 {
		return fmt.Sprintf("plan: %d to delete, %d refused", deletes, len(p.Refusals))
	}
	return fmt.Sprintf("plan: %d to create, %d to change, %d refused", creates, len(p.Changes)-creates, len(p.Refusals))
}

func (c Change) sign() string {
	switch {
	case c.Call.Creates():
		return "+"
	case c.Call.Deletes():
		return "-"
	}
	return "~"
}

// Title returns the change in one line.
func (c Change) Title() string { return fmt.Sprintf("%s %s", c.Call, c.Resource) }

func (d Difference) String() string {
	switch {
	case d.Was == "":
		return fmt.Sprintf("+ %s: %s", d.Field, d.Becomes)
	case d.Becomes == "":
		return fmt.Sprintf("- %s: %s", d.Field, d.Was)
	}
	return fmt.Sprintf("~ %s: %s -> %s", d.Field, d.Was, d.Becomes)
}
