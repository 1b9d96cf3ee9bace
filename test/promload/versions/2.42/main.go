// Command 2.42 loads the configuration on standard input as Prometheus 2.42 does.
package main

import (
	"log"

	kitlog "github.com/go-kit/log"
	"github.com/prometheus/prometheus/config"
)

func main() {
	if _, err := config.LoadFile("/dev/stdin", false, false, kitlog.NewNopLogger()); err != nil {
		log.Fatal(err)
	}
}
