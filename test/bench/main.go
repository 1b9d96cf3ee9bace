// Command bench measures the cost of admission and prints the figures with their budgets:
//
//	go run ./test/bench             everything, in a few minutes
//	go run ./test/bench -parts handler
//	go run ./test/bench -compare https://127.0.0.1:8443/mutate -ca ca.crt
//
// The parts are
//
//	handler   the webhook over HTTPS, with look-ups answered in memory, in one run
//	          with two servers that return a constant: one is controller-runtime's
//	          server, the other is Go's own ("plain")
//	cluster   the webhook's own time for pods that are created one at a time through a
//	          real API server, and its memory with few and with many service accounts
//	sidecar   the idle config sidecar's memory and processor time, with a configuration
//	          of 100 KB and with one of 1 MB
//	relay     the relay compared with a Prometheus that signs itself: processor time,
//	          latency, memory, outages and lost samples; this takes about six minutes, so
//	          it runs only if -parts names it (make bench-relay)
//
// -compare measures another webhook for pods, such as amazon-eks-pod-identity-webhook, together
// with ampbridge's. Both get the same reviews, and bench prints the ratios of this run. If the
// webhook's certificate has another name than the URL, as with kubectl port-forward, set the name
// with -server-name.
//
// -profile writes the servers' CPU profiles. The handler's ratio is that of the requests per
// second. The next column is the ratio of the processor time of a request, of client and server
// together. Other load on the machine affects it less; on an idle machine both ratios agree.
//
// Figures depend on the machine, but ratios and the constancy of memory hardly do. A missed budget
// is reported, but is not an error: the exit status is that of the measurement. Lost samples of the
// relay, and memory beyond its limits, are errors.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "serve-") {
		exit(runChild(os.Args[1], os.Args[2:]))
	}
	parts := flag.String("parts", "handler,cluster,sidecar", "what to measure")
	accounts := flag.Int("accounts", 50_000, "how many service accounts are many")
	profile := flag.String("profile", "", "`DIRECTORY` for CPU profiles of the servers of part handler")
	compare := compareOptions{}
	flag.StringVar(&compare.url, "compare", "", "`URL` of another webhook for pods, to measure only this one and ampbridge's")
	flag.StringVar(&compare.ca, "ca", "", "`FILE` with the CA certificates, in PEM, of the webhook of -compare; default: the system's")
	flag.StringVar(&compare.serverName, "server-name", "", "`NAME` in the certificate of the webhook of -compare; default: the URL's host")
	relay := relayOptions{}
	flag.IntVar(&relay.series, "series", 20_000, "part relay: how many series are scraped each second")
	flag.IntVar(&relay.windows, "windows", 8, "part relay: how many windows of processor time are compared")
	flag.DurationVar(&relay.window, "window", 10*time.Second, "part relay: how long a window is")
	flag.IntVar(&relay.outages, "outages", 3, "part relay: how many outages of AMP there are")
	flag.DurationVar(&relay.outage, "outage", 30*time.Second, "part relay: how long an outage is")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exit(run(ctx, strings.Split(*parts, ","), *accounts, *profile, compare, relay))
}

func exit(err error) {
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func run(ctx context.Context, parts []string, accounts int, profile string, compare compareOptions, relay relayOptions) error {
	ca, err := compare.check()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ampbridge-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system removes its temporary files
	r := &report{out: os.Stdout}
	if compare.url != "" {
		return measureCompared(ctx, dir, compare, ca, r)
	}
	known := []string{"handler", "cluster", "sidecar", "relay"}
	for _, part := range parts {
		if !slices.Contains(known, part) {
			return fmt.Errorf("-parts: %q is unknown: write some of %s", part, strings.Join(known, ","))
		}
	}
	if slices.Contains(parts, "handler") {
		if err := measureHandler(ctx, dir, profile, r); err != nil {
			return fmt.Errorf("handler: %w", err)
		}
	}
	if slices.Contains(parts, "cluster") {
		if err := measureCluster(ctx, dir, accounts, r); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	if slices.Contains(parts, "sidecar") {
		if err := measureSidecar(ctx, dir, r); err != nil {
			return fmt.Errorf("sidecar: %w", err)
		}
	}
	if slices.Contains(parts, "relay") {
		if err := measureRelay(ctx, dir, relay, r); err != nil {
			return fmt.Errorf("relay: %w", err)
		}
	}
	return nil
}
