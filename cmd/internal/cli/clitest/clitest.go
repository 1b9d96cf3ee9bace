// Package clitest runs ampbridge's commands in tests.
package clitest

import (
	"bytes"
	"context"
	"strings"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
)

// Run runs a command in this process, and returns its exit status and what it printed.
func Run(ctx context.Context, stdin string, args ...string) (status int, stdout, stderr string) {
	var out, errs bytes.Buffer
	status = cli.Main(ctx, args, strings.NewReader(stdin), &out, &errs)
	return status, out.String(), errs.String()
}
