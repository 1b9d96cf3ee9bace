// Package usage marks errors of the command line, so that the program ends with status
// 2 if it was called wrongly, and with 1 if it failed. Packages that find such an error
// only after they have read the policy use it too.
package usage

import (
	"errors"
	"fmt"
	"slices"
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

// OneOf returns an error if the value of a flag is not one of values.
func OneOf(flag, value string, values ...string) error {
	if slices.Contains(values, value) {
		return nil
	}
	return Errorf("--%s %q is unknown: write one of %q", flag, value, values)
}
