//go:build linux

// Command reloader replaces jimmidyson/configmap-reload, which cannot be built from the module proxy. It does
// the same: it watches the directory of --volume-dir with inotify, and posts to --webhook-url only when an
// entry with the name ..data is created there. fsnotify, which the original uses, reports a rename to a name
// as its creation.
package main

import (
	"bytes"
	"encoding/binary"
	"flag"
	"log"
	"net/http"
	"syscall"
)

func main() {
	dir := flag.String("volume-dir", "", "the `DIRECTORY` to watch")
	url := flag.String("webhook-url", "", "the `URL` to post to")
	flag.Parse()
	log.Fatal(watch(*dir, func() error {
		response, err := http.Post(*url, "", http.NoBody)
		if err != nil {
			return err
		}
		log.Printf("POST %s: %s", *url, response.Status)
		return response.Body.Close()
	}))
}

// watch returns with the first error of inotify; errors of reload are logged.
func watch(dir string, reload func() error) error {
	fd, err := syscall.InotifyInit1(syscall.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := syscall.InotifyAddWatch(fd, dir, syscall.IN_CREATE|syscall.IN_MOVED_TO); err != nil {
		return err
	}
	log.Printf("watching %s", dir)
	buffer := make([]byte, 1<<16)
	for {
		n, err := syscall.Read(fd, buffer)
		if err != nil {
			return err
		}
		for events := buffer[:n]; len(events) >= syscall.SizeofInotifyEvent; {
			// struct inotify_event: wd, mask, cookie, len, name[len], see inotify(7).
			length := int(binary.NativeEndian.Uint32(events[12:]))
			name := bytes.TrimRight(events[syscall.SizeofInotifyEvent:syscall.SizeofInotifyEvent+length], "\x00")
			log.Printf("created: %s", name)
			if string(name) == "..data" {
				if err := reload(); err != nil {
					log.Print(err)
				}
			}
			events = events[syscall.SizeofInotifyEvent+length:]
		}
	}
}
