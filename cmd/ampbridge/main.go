// Command ampbridge is the webhook, sync, and the tools around them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"

	// CA roots for where the system has none: the image is made FROM scratch.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Main(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}
