package cli

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

// choice is the value of a flag that takes one of a few words. An unknown word is an error
// that lists the known ones, and the shell completes them.
type choice struct {
	value  *string
	flag   string
	values []string
}

// registerChoice adds a flag with the default *value. The usage text has a %s for the words.
func registerChoice(flags *pflag.FlagSet, value *string, name, shorthand, text string, values ...string) {
	words := slices.DeleteFunc(slices.Clone(values), func(s string) bool { return s == "" })
	text = strings.Replace(text, "%s", strings.Join(words, ", "), 1)
	flags.VarP(&choice{value, name, values}, name, shorthand, text)
}

// String implements [pflag.Value].
func (c *choice) String() string { return *c.value }

// Type implements [pflag.Value].
func (c *choice) Type() string { return "string" }

// Set implements [pflag.Value].
func (c *choice) Set(value string) error {
	if err := usage.OneOf(c.flag, value, c.values...); err != nil {
		return err
	}
	*c.value = value
	return nil
}

// registerOutput adds the flag for the format of a report: text, json and yaml, and the
// further ones.
func registerOutput(flags *pflag.FlagSet, format *string, further ...string) {
	*format = output.Text
	registerChoice(flags, format, "output", "o", "`FORMAT` of the report: %s",
		append([]string{output.Text, output.JSON, output.YAML}, further...)...)
}
