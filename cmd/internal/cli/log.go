package cli

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"
)

// registerLog adds the flags of the log of a process that serves.
func registerLog(flags *pflag.FlagSet, format, level *string) {
	*format, *level = "json", "info"
	registerChoice(flags, format, "log-format", "", "`FORMAT` of the log on stderr: %s", "json", "text")
	registerChoice(flags, level, "log-level", "", "`LEVEL` of the log: %s", "debug", "info", "warn", "error")
}

func newLogger(w io.Writer, format, name string) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}
