// Package usage marks errors of the command line itself, so that the program can
// end with status 2 where it was called wrongly and with 1 where it failed.
package usage

import (
	"errors"
	"fmt"
)

// Error is a mistake in flags or arguments.
type Error struct{ problem string }

func (e *Error) Error() string { return e.problem }

// Errorf names the mistake and the mend.
func Errorf(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Is tells whether err is such a mistake.
func Is(err error) bool {
	var e *Error
	return errors.As(err, &e)
}

// OneOf checks the value of a flag that has a few.
func OneOf(flag, value string, values ...string) error {
	for _, v := range values {
		if v == value {
			return nil
		}
	}
	return Errorf("--%s %q is unknown: write one of %q", flag, value, values)
}
