package cli

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

// flagError names the flag that is wrong, and the fix.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var empty *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() != "":
		return usage.Errorf("unknown flag: -%s", unknown.GetSpecifiedName())
	case errors.As(err, &unknown):
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		name := unknown.GetSpecifiedName()
		return usage.Errorf("unknown flag: --%s%s", name, didYouMean("--", name, names))
	case errors.As(err, &empty):
		f := empty.GetFlag()
		placeholder, _ := pflag.UnquoteUsage(f)
		return usage.Errorf("--%s needs a value: write --%s %s", f.Name, f.Name, placeholder)
	case errors.As(err, &invalid) && usage.Is(invalid):
		return invalid.Unwrap()
	case errors.As(err, &invalid):
		f := invalid.GetFlag()
		want, found := map[string]string{
			"duration": "a duration, such as 30s, 5m or 1h", "int": "a whole number", "bool": "true or false",
		}[f.Value.Type()]
		if !found {
			want = invalid.Unwrap().Error()
		}
		return usage.Errorf("--%s %q is invalid: write %s", f.Name, invalid.GetValue(), want)
	}
	return usage.Errorf("%v", err)
}

// rejectArguments is for commands without arguments of their own. An argument is then an
// unknown command, or the value of a flag that is missing.
func rejectArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasAvailableSubCommands() {
		var names []string
		for _, c := range cmd.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return usage.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), didYouMean("", args[0], names))
	}
	extension := filepath.Ext(args[0])
	if cmd.Flags().Lookup("policy") != nil && (extension == ".yaml" || extension == ".yml") {
		return usage.Errorf("unexpected argument %q: did you mean --policy %s?", args[0], args[0])
	}
	return usage.Errorf("unexpected argument %q: %s takes flags only", args[0], cmd.CommandPath())
}

// didYouMean returns a question with the names that resemble got; empty: none does.
func didYouMean(prefix, got string, names []string) string {
	const most = 3
	distance := func(name string) int { return levenshtein.Distance(strings.ToLower(got), name, nil) }
	near := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		contained := len(got) > 2 && (strings.Contains(name, got) || strings.Contains(got, name))
		return !contained && distance(name) > min(1+len(got)/4, 3)
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

// missing returns the error for a required flag that was not given.
func missing(flag, example string) error {
	return usage.Errorf("--%s is missing: write for example --%s %s", flag, flag, example)
}

// examplePolicy is the value of --policy in examples.
const examplePolicy = "policy.yaml"
