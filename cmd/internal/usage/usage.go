// Package usage marks errors of the command line, so that the program ends with status
// 2 if it was called wrongly, and with 1 if it failed. Packages that find such an error
// only after they have read the policy use it too.
package usage

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Error is a mistake in flags or arguments.
type Error struct{ problem string }

func (e *Error) Error() string { return e.problem }

// Errorf returns an Error. Its text names the mistake and the fix.
func Errorf(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Is reports whether err is an [Error].
func Is(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// OneOf returns an error if the value of a flag is not one of values. The error does not list an
// empty value.
func OneOf(flag, value string, values ...string) error {
	if slices.Contains(values, value) {
		return nil
	}
	words := slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" })
	return Errorf("--%s %q is unknown: write %s%s", flag, value, either(words), resembling("", value, words, 1+len(value)/5))
}

// either returns the words as a list for people, such as text, json or yaml.
func either(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// DidYouMean returns a question with the names that resemble got; empty: none does.
func DidYouMean(prefix, got string, names []string) string {
	return resembling(prefix, got, names, 1+len(got)/4)
}

// resembling returns the question of [DidYouMean]. A name resembles got up to limit changed letters.
func resembling(prefix, got string, names []string, limit int) string {
	const most = 3
	distance := func(name string) int { return levenshtein.Distance(strings.ToLower(got), name, nil) }
	near := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		contained := len(got) > 2 && (strings.Contains(name, got) || strings.Contains(got, name))
		return !contained && distance(name) > min(limit, 3)
	})
	if len(near) == 0 {
		return ""
	}
	slices.SortFunc(near, func(a, b string) int { return cmp.Or(distance(a)-distance(b), strings.Compare(a, b)) })
	if len(near) > most {
		near = near[:most]
	}
	return fmt.Sprintf(": did you mean %s%s?", prefix, strings.Join(near, " or "+prefix))
}
