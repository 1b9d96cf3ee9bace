// Package cli holds every command of ampbridge: its flags, help, validation and exit
// status. What a command does is in packages without cobra, and no command calls
// another one.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ampbridge/ampbridge/cmd/internal/doctor"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

// Exit statuses.
const (
	OK     = 0
	Failed = 1
	Usage  = 2
	// Unchecked is doctor's: no check failed, and some were skipped.
	Unchecked = 3
)

const (
	// program is the name of the program.
	program = "ampbridge"
	// plugin is the name of the file that kubectl runs for `kubectl ampbridge`.
	plugin = "kubectl-ampbridge"
)

// Main runs the program and returns its exit status. The arguments do not include
// the program's name. Errors go to stderr, one line each, without a usage text that
// would hide them.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := newRoot(os.Args[0])
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	// An error before a command begins is an error of the command line.
	began := false
	cmd.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkSharedFlags(cmd, stderr); err != nil {
			return err
		}
		began = true
		return nil
	}
	// Help about a command that does not exist is not the help of the command above it.
	var unknown error
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if cmd.HasAvailableSubCommands() {
			unknown = rejectArguments(cmd, cmd.Flags().Args())
		}
		if unknown == nil {
			help(cmd, args)
		}
	})
	ran, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		err = unknown
	}
	if err == nil {
		return OK
	}
	for line := range strings.Lines(err.Error()) {
		_, _ = fmt.Fprintf(stderr, "ampbridge: %s\n", strings.TrimSuffix(line, "\n"))
	}
	if hint := missingFile(ran, err); hint != "" {
		_, _ = fmt.Fprintf(stderr, "ampbridge: %s\n", hint)
	}
	var unchecked *doctor.UncheckedError
	switch {
	case errors.As(err, &unchecked):
		return Unchecked
	case began && !usage.Is(err):
		return Failed
	}
	_, _ = fmt.Fprintf(stderr, "ampbridge: see %s --help\n", ran.CommandPath())
	return Usage
}

// checkSharedFlags checks the flags that several commands have, and names the new name of
// each old one on stderr.
func checkSharedFlags(cmd *cobra.Command, stderr io.Writer) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		for _, name := range f.Annotations[renamedTo] {
			if cmd.Flags().Changed(name) {
				err = usage.Errorf("--%s and --%s are the same flag: leave out --%s", f.Name, name, f.Name)
			}
			_, _ = fmt.Fprintf(stderr, "ampbridge: --%s is deprecated: use --%s\n", f.Name, name)
		}
	})
	if f := cmd.Flags().Lookup(clientcmd.FlagTimeout); err == nil && f != nil {
		if _, invalid := clientcmd.ParseTimeout(f.Value.String()); invalid != nil {
			err = usage.Errorf("--%s %q is invalid: write a duration, such as 10s, or 0 for no limit", f.Name, f.Value)
		}
	}
	return err
}

// New returns the root command with all commands below it.
func New() *cobra.Command { return newRoot(program) }

// The groups of commands in the help.
const (
	groupStart   = "start"
	groupSetUp   = "setup"
	groupObserve = "observe"
	groupServe   = "serve"
)

// newRoot returns the root command of the program whose file has this path.
func newRoot(path string) *cobra.Command {
	var version bool
	cmd := &cobra.Command{
		Use:   program + " COMMAND",
		Short: "Let any Prometheus on any Kubernetes cluster write to Amazon Managed Service for Prometheus",
		Long: `Prometheus then needs no static credentials and no change to its manifests:
label a namespace, roll Prometheus, done.

A wrong command line ends with status 2, and everything else that fails with status 1.`,
		Example: `  # See what ampbridge does, without a cluster and without AWS.
  ampbridge try

  # Check everything from the cluster to the workspace.
  ampbridge doctor`,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if version {
				return printVersionLine(cmd.OutOrStdout())
			}
			return cmd.Help()
		},
	}
	// kubectl runs plugins by their path. On Windows the name ends in .exe.
	if strings.TrimSuffix(filepath.Base(path), ".exe") == plugin {
		cmd.Annotations = map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl " + program}
	}
	cmd.Flags().BoolVar(&version, "version", false, "print the version of this program")
	cmd.AddGroup(
		&cobra.Group{ID: groupStart, Title: "Look around, without a change to anything"},
		&cobra.Group{ID: groupSetUp, Title: "Prepare AWS"},
		&cobra.Group{ID: groupObserve, Title: "See and check an installation"},
		&cobra.Group{ID: groupServe, Title: "Run in the cluster"},
	)
	for group, commands := range map[string][]*cobra.Command{
		groupStart:   {newTry(), newDiscover(), newValidate(), newInject(), newConfig()},
		groupSetUp:   {newBootstrap(), newPlan(), newIssuer()},
		groupObserve: {newDoctor(), newStatus(), newVersion()},
		groupServe:   {newWebhook(), newSync()},
	} {
		for _, c := range commands {
			c.GroupID = group
			cmd.AddCommand(c)
		}
	}
	cmd.SetHelpCommand(newHelp())
	cmd.InitDefaultHelpCmd()
	cmd.CompletionOptions.DisableDefaultCmd = true
	cmd.AddCommand(newCompletion())
	cmd.SetHelpFunc(func(cmd *cobra.Command, _ []string) { _ = writeHelp(cmd.OutOrStdout(), cmd) })
	cmd.SetUsageFunc(func(cmd *cobra.Command) error { return writeHelp(cmd.OutOrStderr(), cmd) })
	cmd.SetFlagErrorFunc(flagError)
	finish(cmd)
	return cmd
}

// finish gives a command, and all below it, what all commands have.
func finish(cmd *cobra.Command) {
	if !cmd.Runnable() {
		cmd.Use += " COMMAND"
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	if cmd.Name() != "help" && cmd.Name() != "validate" {
		cmd.Args = rejectArguments
		if cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
	}
	cmd.DisableFlagsInUseLine = strings.Contains(cmd.Use, " ")
	cmd.Flags().SortFlags = true
	registerCompletion(cmd)
	for _, c := range cmd.Commands() {
		finish(c)
	}
}

// newHelp returns `ampbridge help`.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Describe a command",
		Example: "  ampbridge help doctor",
		ValidArgsFunction: func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if of, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, c := range of.Commands() {
					if c.IsAvailableCommand() && strings.HasPrefix(c.Name(), typed) {
						names = append(names, cobra.CompletionWithDesc(c.Name(), c.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			of, rest, err := cmd.Root().Find(args)
			if err != nil {
				return err
			}
			if err := rejectArguments(of, rest); err != nil {
				return err
			}
			return writeHelp(cmd.OutOrStdout(), of)
		},
	}
}
