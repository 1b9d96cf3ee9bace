// Command idle replaces programs that run next to Prometheus and do not affect it. It ignores its arguments,
// and ends with SIGTERM.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}
