// Command 2.22 loads the configuration on standard input as Prometheus 2.22 does.
package main

import (
	"log"

	"github.com/prometheus/prometheus/config"
)

func main() {
	if _, err := config.LoadFile("/dev/stdin"); err != nil {
		log.Fatal(err)
	}
}
