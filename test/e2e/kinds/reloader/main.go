// Command reloader replaces jimmidyson/configmap-reload, which cannot be built from the module proxy. It does
// the same: it watches the directory of --volume-dir, and posts to --webhook-url only when an entry with the
// name ..data is created there.
package main

import (
	"flag"
	"log"
	"net/http"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

func main() {
	dir := flag.String("volume-dir", "", "the `DIRECTORY` to watch")
	url := flag.String("webhook-url", "", "the `URL` to post to")
	flag.Parse()
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		log.Fatal(err)
	}
	if err := watcher.Add(*dir); err != nil {
		log.Fatal(err)
	}
	log.Printf("watching %s", *dir)
	for {
		select {
		case event := <-watcher.Events:
			if event.Has(fsnotify.Create) && filepath.Base(event.Name) == "..data" {
				post(*url)
			}
		case err := <-watcher.Errors:
			log.Fatal(err)
		}
	}
}

// post calls the webhook, and logs how that ended.
func post(url string) {
	response, err := http.Post(url, "", http.NoBody)
	if err != nil {
		log.Print(err)
		return
	}
	_ = response.Body.Close()
	log.Printf("POST %s: %s", url, response.Status)
}
