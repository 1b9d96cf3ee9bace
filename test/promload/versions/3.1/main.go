// Command 3.1 loads the configuration on standard input as Prometheus 3.1 does.
package main

import (
	"io"
	"log"
	"log/slog"
	"os"

	"github.com/prometheus/prometheus/config"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = config.Load(string(text), slog.New(slog.DiscardHandler))
	}
	if err != nil {
		log.Fatal(err)
	}
}
