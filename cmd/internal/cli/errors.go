package cli

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

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
		name := "-" + unknown.GetSpecifiedName()
		return usage.Errorf("unknown flag: %s%s", name, habit(cmd, name))
	case errors.As(err, &unknown):
		var names []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if !f.Hidden {
				names = append(names, f.Name)
			}
		})
		name := unknown.GetSpecifiedName()
		hint := habit(cmd, "--"+name)
		if hint == "" {
			hint = usage.DidYouMean("--", name, names)
		}
		return usage.Errorf("unknown flag: --%s%s", name, hint)
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

// habits are the flags of other tools that people try with a command, each with the answer.
var habits = map[string]map[string]string{
	"bootstrap": {"--dry-run": "bootstrap changes nothing without --apply: leave it out"},
	"plan":      {"--dry-run": "plan changes nothing: leave it out"},
	"discover": {
		"--policy":         noFile,
		"--file":           noFile,
		"-f":               noFile,
		"-A":               allNamespaces,
		"--all-namespaces": allNamespaces,
	},
}

const (
	noFile        = "discover reads the cluster and no file; for files use ampbridge inject -f FILE --policy FILE"
	allNamespaces = "discover reads all namespaces: leave it out"
)

// habit returns the answer to a flag of another tool; empty: there is none.
func habit(cmd *cobra.Command, flag string) string {
	if answer, found := habits[cmd.Name()][flag]; found {
		return ": " + answer
	}
	switch flag {
	case "-f", "-p", "--file", "--filename", "--config":
		if cmd.Flags().Lookup("policy") != nil {
			return ": did you mean --policy?"
		}
	}
	return ""
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
		return usage.Errorf("unknown command %q for %q%s", args[0], cmd.CommandPath(), usage.DidYouMean("", args[0], names))
	}
	extension := filepath.Ext(args[0])
	if cmd.Flags().Lookup("policy") != nil && (extension == ".yaml" || extension == ".yml") {
		return usage.Errorf("unexpected argument %q: did you mean --policy %s?", args[0], args[0])
	}
	return usage.Errorf("unexpected argument %q: %s takes flags only", args[0], cmd.CommandPath())
}

// missingFile returns the flag or argument that names a file that does not exist, and the files
// beside it that resemble it; empty: err has another cause.
func missingFile(cmd *cobra.Command, err error) string {
	absent, ok := errors.AsType[*fs.PathError](err)
	if !ok || !errors.Is(absent, fs.ErrNotExist) {
		return ""
	}
	given := slices.Contains(cmd.Flags().Args(), absent.Path)
	name := "the file"
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); f.Value.String() == absent.Path || ok && slices.Contains(list.GetSlice(), absent.Path) {
			name, given = "the file of --"+f.Name, true
		}
	})
	if !given {
		return ""
	}
	var names []string
	dir, file := filepath.Split(absent.Path)
	entries, _ := os.ReadDir(filepath.Clean(dir)) // without the folder there is no name to propose
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return name + " does not exist: " + absent.Path + usage.DidYouMean(dir, file, names)
}

// missing returns the error for a required flag that was not given.
func missing(flag, example string) error {
	return usage.Errorf("--%s is missing: write for example --%s %s", flag, flag, example)
}

// examplePolicy is the value of --policy in examples.
const examplePolicy = "policy.yaml"
