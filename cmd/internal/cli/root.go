// Package cli holds every command of ampbridge: its flags, help, validation and exit
// status. What a command does is in packages without cobra, and no command calls
// another one.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

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

// Main runs the program and returns its exit status. The arguments do not include
// the program's name. Errors go to stderr, one line each, without a usage text that
// would hide them.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	// An error before a command begins is an error of the command line.
	began := false
	cmd.PersistentPreRun = func(*cobra.Command, []string) { began = true }
	ran, err := cmd.ExecuteContextC(ctx)
	if err == nil {
		return OK
	}
	for line := range strings.Lines(err.Error()) {
		_, _ = fmt.Fprintf(stderr, "ampbridge: %s\n", strings.TrimSuffix(line, "\n"))
	}
	var unchecked *doctor.UncheckedError
	switch {
	case errors.As(err, &unchecked):
		return Unchecked
	case began && !usage.Is(err):
		return Failed
	}
	_, _ = fmt.Fprintf(stderr, "ampbridge: %s --help says more\n", ran.CommandPath())
	return Usage
}

// New returns the root command with all commands below it.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ampbridge",
		Short: "Let any Prometheus on any Kubernetes cluster write to Amazon Managed Service for Prometheus",
		Long: `ampbridge lets Prometheus on any Kubernetes cluster write to Amazon Managed
Service for Prometheus, with no static credentials and no change to its manifests:
label a namespace, roll Prometheus, done.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	cmd.AddCommand(
		newWebhook(), newSync(), newPlan(), newBootstrap(), newIssuer(), newDoctor(), newStatus(),
		newTry(), newDiscover(), newValidate(), newInject(), newConfig(), newVersion(),
	)
	return cmd
}
