// Command 2.8 loads the configuration on standard input as Prometheus 2.8 does.
package main

import (
	"io"
	"log"
	"os"

	"github.com/prometheus/prometheus/config"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = config.Load(string(text))
	}
	if err != nil {
		log.Fatal(err)
	}
}
