// Command 3.1 loads the configuration on standard input as Prometheus 3.1 does.
package main

import (
	"log"
	"log/slog"

	"github.com/prometheus/prometheus/config"
)

func main() {
	if _, err := config.LoadFile("/dev/stdin", false, slog.New(slog.DiscardHandler)); err != nil {
		log.Fatal(err)
	}
}
