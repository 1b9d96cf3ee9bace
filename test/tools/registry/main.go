// Command registry is a registry of container images, in memory, for the tests
// that push and pull as people do.
//
//	registry -listen HOST:PORT -cert tls.crt -key tls.key
package main

import (
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	listen := flag.String("listen", "", "`HOST:PORT` to serve at")
	cert := flag.String("cert", "", "certificate `FILE`")
	key := flag.String("key", "", "key `FILE`")
	flag.Parse()
	server := &http.Server{Addr: *listen, Handler: registry.New(), ReadHeaderTimeout: time.Minute}
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}
