package check

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// State says how a link stands.
type State string

// The states, from the best to the worst.
const (
	// Pass: the link holds.
	Pass State = "ok"
	// Skip: it was not checked, because another link is broken, because the
	// means are missing, or because there is nothing to check.
	Skip State = "skipped"
	// Warn: it holds now, but something about it wants a look.
	Warn State = "doubtful"
	// Fail: this is what has to be mended.
	Fail State = "broken"
)

// worse compares states by the order in which they are listed above.
func (s State) worse(than State) bool {
	order := []State{Pass, Skip, Warn, Fail}
	return slices.Index(order, s) > slices.Index(order, than)
}

// Mark is the sign of a state on the ladder.
func (s State) Mark() string {
	switch s {
	case Pass:
		return "✓"
	case Fail:
		return "✗"
	case Warn:
		return "!"
	}
	return "–"
}

// About says which of several things a finding is about. Empty members mean all
// of them.
type About struct {
	// Subject is system:serviceaccount:<namespace>:<name>.
	Subject string `json:"subject,omitempty"`
	// Destination is a name of the policy's.
	Destination string `json:"destination,omitempty"`
	// Account is the id of an AWS account.
	Account string `json:"account,omitempty"`
	// Pod is <namespace>/<name>.
	Pod string `json:"pod,omitempty"`
}

// meets tells whether what is said of one is true of the other too.
func (a About) meets(b About) bool {
	same := func(x, y string) bool { return x == "" || y == "" || x == y }
	return same(a.Subject, b.Subject) && same(a.Destination, b.Destination) && same(a.Account, b.Account) && same(a.Pod, b.Pod)
}

// String is short: the subject without its prefix.
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

// Finding is how one link stands, for one thing.
type Finding struct {
	Check ID    `json:"link"`
	State State `json:"state"`
	About About `json:"about,omitzero"`
	// Message is one sentence: what was seen. It holds no secret.
	Message string `json:"says"`
	// BlockedBy is the broken link on account of which this one was not checked.
	BlockedBy ID `json:"because,omitempty"`
	// NotAsked is true where there is nothing to check: a flag left the link out, or
	// the link does not apply. It does not count as something that was not checked.
	NotAsked bool `json:"notAsked,omitempty"`
	// Fix is what to do; nil where there is nothing.
	Fix *Fix `json:"mend,omitempty"`
}

// Fix is what makes a broken link hold.
type Fix struct {
	// Summary says it in words, for the person who has to.
	Summary string `json:"do"`
	// Commands do it, in this order, where commands can. Each is a program and
	// its arguments, as they are handed to it.
	Commands []Command `json:"commands,omitempty"`
}

// Command is a program and its arguments.
type Command []string

// String is the command as it is typed into a POSIX shell.
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

// Passed is the finding of a link that holds.
func Passed(l ID, a About, format string, args ...any) Finding {
	return Finding{Check: l, State: Pass, About: a, Message: fmt.Sprintf(format, args...)}
}

// Failed is the finding of a broken link.
func Failed(l ID, a About, mend Fix, format string, args ...any) Finding {
	return Finding{Check: l, State: Fail, About: a, Message: fmt.Sprintf(format, args...), Fix: &mend}
}

// Warned is the finding of a link that holds, but not for long, or not quite.
func Warned(l ID, a About, mend Fix, format string, args ...any) Finding {
	f := Failed(l, a, mend, format, args...)
	f.State = Warn
	return f
}

// Skipped is the finding of a link that could not be looked at, for want of the
// means.
func Skipped(l ID, a About, format string, args ...any) Finding {
	return Finding{Check: l, State: Skip, About: a, Message: fmt.Sprintf(format, args...)}
}

// NotAsked is the finding of a link that need not be checked: a flag leaves it
// out, or it does not apply.
func NotAsked(l ID, a About, format string, args ...any) Finding {
	f := Skipped(l, a, format, args...)
	f.NotAsked = true
	return f
}

// NewFix is a mend in words, with the commands that do it, if any.
func NewFix(words string, commands ...Command) Fix { return Fix{Summary: words, Commands: commands} }

// Span is a duration for people, in its largest unit.
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

// count is a number with what is counted.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
