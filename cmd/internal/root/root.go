// Package root puts the commands together and turns their errors into exit
// statuses.
package root

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/bootstrap"
	"github.com/ampbridge/ampbridge/cmd/internal/config"
	"github.com/ampbridge/ampbridge/cmd/internal/doctor"
	"github.com/ampbridge/ampbridge/cmd/internal/inject"
	"github.com/ampbridge/ampbridge/cmd/internal/issuer"
	"github.com/ampbridge/ampbridge/cmd/internal/plan"
	"github.com/ampbridge/ampbridge/cmd/internal/status"
	"github.com/ampbridge/ampbridge/cmd/internal/sync"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/cmd/internal/validate"
	"github.com/ampbridge/ampbridge/cmd/internal/version"
	"github.com/ampbridge/ampbridge/cmd/internal/webhook"
)

// Exit statuses.
const (
	OK     = 0
	Failed = 1
	Usage  = 2
	// Unchecked is doctor's: no check failed, and some were skipped.
	Unchecked = 3
)

// Main runs the program with its arguments, without its name, and returns the
// exit status. Errors go to stderr, a line each, and nothing else does on their
// account: a usage text would hide them.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	cmd := New()
	cmd.SetArgs(args)
	cmd.SetIn(stdin)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	// Whatever fails before a command begins is wrong with the command line.
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

// New is the whole tree of commands.
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
		webhook.New(), sync.New(), plan.New(), bootstrap.New(), issuer.New(), doctor.New(), status.New(),
		validate.New(), inject.New(), config.New(), version.New(),
	)
	return cmd
}
