package check

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Status is the result of a check.
type Status string

// The statuses, from the best to the worst.
const (
	// Pass means that the check ran and found nothing wrong.
	Pass Status = "pass"
	// Skip means that the check did not run: a check that it depends on failed, a
	// permission or a credential is missing, or there is nothing to check.
	Skip Status = "skip"
	// Warn means that the check passed, but something may fail later.
	Warn Status = "warn"
	// Fail means that something must be fixed.
	Fail Status = "fail"
)

// Worse reports whether the status comes after the other one in the list above.
func (s Status) Worse(than Status) bool {
	order := []Status{Pass, Skip, Warn, Fail}
	return slices.Index(order, s) > slices.Index(order, than)
}

// About identifies the object of a finding. An empty member means all objects.
type About struct {
	// Subject is system:serviceaccount:<namespace>:<name>.
	Subject string `json:"subject,omitempty"`
	// Destination is the name of a destination in the policy.
	Destination string `json:"destination,omitempty"`
	// Account is the ID of an AWS account.
	Account string `json:"account,omitempty"`
	// Pod is <namespace>/<name>.
	Pod string `json:"pod,omitempty"`
}

// overlaps reports whether a finding about one object also concerns the other.
func (a About) overlaps(b About) bool {
	same := func(x, y string) bool { return x == "" || y == "" || x == y }
	return same(a.Subject, b.Subject) && same(a.Destination, b.Destination) && same(a.Account, b.Account) && same(a.Pod, b.Pod)
}

// String returns a short form, with the subject without its prefix.
func (a About) String() string {
	var parts []string
	if _, name, found := strings.Cut(a.Subject, "serviceaccount:"); found {
		parts = append(parts, strings.Replace(name, ":", "/", 1))
	}
	if a.Pod != "" {
		parts = append(parts, a.Pod)
	}
	if a.Destination != "" {
		parts = append(parts, a.Destination)
	} else if a.Account != "" {
		parts = append(parts, a.Account)
	}
	return strings.Join(parts, " → ")
}

// Finding is the result of one check for one object.
//
// The JSON names are those of `ampbridge doctor -o json`.
type Finding struct {
	ID     ID     `json:"id"`
	Status Status `json:"status"`
	About  About  `json:"about,omitzero"`
	// Message describes what was found, without secrets.
	Message string `json:"message"`
	// BlockedBy is the failed check that caused this one to be skipped.
	BlockedBy ID `json:"blockedBy,omitempty"`
	// Excluded is true if the check was skipped on purpose: a flag excludes it, or it
	// does not apply. [Report.Unchecked] ignores such findings.
	Excluded bool `json:"excluded,omitempty"`
	// Compared has two values that explain the finding; nil: there are none.
	Compared *Comparison `json:"compared,omitempty"`
	// Fix is what to do; nil: nothing.
	Fix *Fix `json:"fix,omitempty"`
	// Proof is the check that turns a warning, or a skipped check, into a pass if it passes;
	// empty: none does.
	Proof ID `json:"-"`
	// Stays is true if that check proves it for this machine alone: then it stays a warning.
	Stays bool `json:"-"`
}

// until returns the finding, about documents, with the check that turns it into a pass.
func (f Finding) until(proof ID, documents ...policy.Document) Finding {
	f.Proof, f.Stays = proof, ofThisMachine(documents...)
	return f
}

// Fix is what makes a failed check pass.
type Fix struct {
	// Summary describes the fix for a person.
	Summary string `json:"summary"`
	// Commands carry out the fix, in this order; empty: no command can. Each is a
	// program and its arguments.
	Commands []Command `json:"commands,omitempty"`
}

// Command is a program and its arguments.
type Command []string

// String returns the command as a POSIX shell reads it.
func (c Command) String() string {
	words := make([]string, len(c))
	for i, w := range c {
		words[i] = quote(w)
	}
	return strings.Join(words, " ")
}

func quote(word string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@%+"
	if word != "" && strings.Trim(word, plain) == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// Passed returns the finding of a check that passed.
func Passed(id ID, a About, format string, args ...any) Finding {
	return Finding{ID: id, Status: Pass, About: a, Message: fmt.Sprintf(format, args...)}
}

// Failed returns the finding of a check that failed.
func Failed(id ID, a About, fix Fix, format string, args ...any) Finding {
	return Finding{ID: id, Status: Fail, About: a, Message: fmt.Sprintf(format, args...), Fix: &fix}
}

// Warned returns the finding of a check that passed, although something may fail later.
func Warned(id ID, a About, fix Fix, format string, args ...any) Finding {
	f := Failed(id, a, fix, format, args...)
	f.Status = Warn
	return f
}

// Skipped returns the finding of a check that could not run, because a permission
// or a credential is missing.
func Skipped(id ID, a About, format string, args ...any) Finding {
	return Finding{ID: id, Status: Skip, About: a, Message: fmt.Sprintf(format, args...)}
}

// Excluded returns the finding of a check that need not run: a flag excludes it, or
// it does not apply.
func Excluded(id ID, a About, format string, args ...any) Finding {
	f := Skipped(id, a, format, args...)
	f.Excluded = true
	return f
}

// For returns the finding with the ID of its check, and its object.
func (f Finding) For(id ID, a About) Finding {
	f.ID, f.About = id, a
	return f
}

// BlockedBy returns the finding of a check that was skipped because another one failed.
func BlockedBy(id ID, a About, failed ID) Finding {
	return Finding{ID: id, Status: Skip, About: a, BlockedBy: failed, Message: "depends on " + string(failed) + ", which failed"}
}

// NewFix returns a fix with a summary and the commands that carry it out, if any.
func NewFix(summary string, commands ...Command) Fix {
	return Fix{Summary: summary, Commands: commands}
}

// Span returns a duration for people, in its largest unit.
func Span(d time.Duration) string {
	const day = 24 * time.Hour
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{day, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*u.unit {
			return fmt.Sprintf("%d %s", int(d.Round(u.unit)/u.unit), u.name)
		}
	}
	return count(int(d.Round(time.Second)/time.Second), "second")
}

// count returns a number with its noun, such as "2 checks".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
