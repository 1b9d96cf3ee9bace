// Command 2.42 loads the configuration on standard input as Prometheus 2.42 does.
package main

import (
	"io"
	"log"
	"os"

	kitlog "github.com/go-kit/log"
	"github.com/prometheus/prometheus/config"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err == nil {
		_, err = config.Load(string(text), false, kitlog.NewNopLogger())
	}
	if err != nil {
		log.Fatal(err)
	}
}
