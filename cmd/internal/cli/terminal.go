package cli

import (
	"io"
	"os"

	"golang.org/x/term"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

// Values of --color.
const (
	colorAuto   = "auto"
	colorAlways = "always"
	colorNever  = "never"
)

// isTerminal reports whether what is written to w is shown on a terminal.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// useColor reports whether text has colours, by the flag, or with auto, by the terminal
// and the environment. NO_COLOR counts unless it is empty (https://no-color.org).
func useColor(flag string, terminal bool, env func(string) string) (bool, error) {
	if err := usage.OneOf("color", flag, colorAuto, colorAlways, colorNever); err != nil {
		return false, err
	}
	if flag != colorAuto {
		return flag == colorAlways, nil
	}
	return terminal && env("NO_COLOR") == "" && env("TERM") != "dumb", nil
}
