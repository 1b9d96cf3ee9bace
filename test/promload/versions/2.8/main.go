// Command 2.8 loads the configuration on standard input as Prometheus 2.8 does.
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
