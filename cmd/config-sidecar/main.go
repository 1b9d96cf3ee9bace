// Command config-sidecar runs beside Prometheus and serves it its configuration,
// with the remote_write blocks that the webhook assigned to its pod. See package
// sidecar.
//
//	config-sidecar          runs until SIGTERM
//	config-sidecar ready    exits with 0 once a configuration is served
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/ampbridge/ampbridge/sidecar"

	// CA roots for where the system has none: the image is made FROM scratch.
	_ "golang.org/x/crypto/x509roots/fallback"
)

func main() { os.Exit(run()) }

// run returns the status to exit with.
func run() int {
	options := sidecar.FromEnvironment(os.Getenv)
	switch {
	case len(os.Args) == 1:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
		defer stop()
		options.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
		if options.MemoryLimit > 0 {
			debug.SetMemoryLimit(options.MemoryLimit / 2) // collect early, not late
		}
		sidecar.Run(ctx, options)
	case len(os.Args) == 2 && os.Args[1] == "ready":
		if err := sidecar.Ready(options); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: config-sidecar [ready]")
		return 2
	}
	return 0
}
