// Command idle stands in for programs that run beside Prometheus and do nothing to it:
// it ignores its arguments, and ends with SIGTERM.
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
