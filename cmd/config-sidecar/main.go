// Command config-sidecar runs beside Prometheus and gives it its configuration,
// with the remote_write blocks from the webhook. See package sidecar.
//
//	config-sidecar          runs until SIGTERM
//	config-sidecar ready    exits with 0 if a configuration is served
//	config-sidecar alive    exits with 1 if the running one hangs
package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar"

	// The image is made FROM scratch, so the system has no CA roots.
	_ "golang.org/x/crypto/x509roots/fallback"
)

// release is set by the linker (-X), in release builds only.
var release string

func main() { os.Exit(run()) }

// run returns the status to exit with.
func run() int {
	options := sidecar.FromEnvironment(os.Getenv)
	options.Version = cmp.Or(release, "unreleased")
	switch {
	case len(os.Args) == 1:
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
		defer stop()
		options.Log = slog.New(slog.NewJSONHandler(os.Stderr, nil))
		if options.MemoryLimit > 0 {
			debug.SetMemoryLimit(sidecarconfig.HeapOf(options.MemoryLimit)) // collect garbage before the container's limit is reached
		}
		context.AfterFunc(ctx, func() {
			time.Sleep(stopLimit)
			options.Log.Warn("shutdown takes too long: exiting now")
			os.Exit(0)
		})
		if err := sidecar.Run(ctx, options); err != nil {
			fmt.Fprintln(os.Stderr, err)
			leaveMessage(err.Error())
			return 1
		}
	case len(os.Args) == 2 && os.Args[1] == sidecarconfig.ReadyArgument:
		if err := sidecar.Ready(options); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	case len(os.Args) == 2 && os.Args[1] == sidecarconfig.AliveArgument:
		if err := sidecar.Alive(options); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	default:
		fmt.Fprintln(os.Stderr, "usage: config-sidecar [ready|alive]")
		return 2
	}
	return 0
}

// stopLimit is how long the process may take to end after SIGTERM.
const stopLimit = 1500 * time.Millisecond

// leaveMessage writes the container's termination message into the file that
// the kubelet creates. If there is no such file, it writes nothing.
func leaveMessage(text string) {
	file, err := os.OpenFile("/dev/termination-log", os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	_, _ = file.WriteString(text)
	_ = file.Close()
}
