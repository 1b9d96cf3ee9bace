package cli

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

// registerLog adds the flags of the log of a process that serves.
func registerLog(flags *pflag.FlagSet, format, level *string) {
	flags.StringVar(format, "log-format", "json", "`FORMAT` of the log on stderr: json or text")
	flags.StringVar(level, "log-level", "info", "`LEVEL` of the log: debug, info, warn or error")
}

func validateLog(format, level string) error {
	if err := usage.OneOf("log-format", format, "json", "text"); err != nil {
		return err
	}
	return usage.OneOf("log-level", level, "debug", "info", "warn", "error")
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
