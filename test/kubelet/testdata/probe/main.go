// Command probe is the program that the tests of test/kubelet run in containers. Its first argument selects what it does.
package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// report is what a program sees of its container.
type report struct {
	Args     []string
	Env      []string
	Dir      string
	Hostname string
	UID, GID int
	Caps     string            // effective and permitted, in the notation of /proc/self/status
	Files    map[string]string // by requested path: the content, or the error
	Root     []string          // entries of /
	Writes   map[string]string // by requested path with the prefix "w:": the error of a write, "" if there is none
}

func main() {
	switch arg := os.Args[1]; arg {
	case "report":
		printReport(os.Args[2:])
	case "serve": // prints a report, then serves HTTP until SIGTERM
		serve(os.Args[2], os.Args[3:])
	case "exit":
		code, err := strconv.Atoi(os.Args[2])
		check(err)
		os.Exit(code)
	case "exists":
		_, err := os.Stat(os.Args[2])
		check(err)
	case "stubborn": // ignores SIGTERM, and leaves a child in the background
		signal.Ignore(syscall.SIGTERM)
		child := exec.Command("/bin/probe", "sleep")
		check(child.Start())
		fmt.Println("child", child.Process.Pid)
		time.Sleep(time.Hour)
	case "sleep":
		time.Sleep(time.Hour)
	default:
		check(fmt.Errorf("unknown argument %q", arg))
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func printReport(paths []string) {
	var err error
	r := report{Args: os.Args, Env: os.Environ(), UID: os.Getuid(), GID: os.Getgid(), Files: map[string]string{}, Writes: map[string]string{}}
	r.Dir, err = os.Getwd()
	check(err)
	r.Hostname, err = os.Hostname()
	check(err)
	status, err := os.ReadFile("/proc/self/status")
	check(err)
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "CapEff") || strings.HasPrefix(line, "CapPrm") || strings.HasPrefix(line, "CapAmb") {
			r.Caps += strings.Join(strings.Fields(line), " ") + ";"
		}
	}
	for _, path := range paths {
		if target, ok := strings.CutPrefix(path, "w:"); ok {
			r.Writes[target] = ""
			if err := os.WriteFile(target, []byte("x"), 0o600); err != nil {
				r.Writes[target] = err.Error()
			}
			continue
		}
		b, err := os.ReadFile(path)
		if err != nil {
			b = []byte(err.Error())
		}
		r.Files[path] = string(b)
	}
	entries, err := os.ReadDir("/")
	check(err)
	for _, e := range entries {
		r.Root = append(r.Root, e.Name())
	}
	check(json.NewEncoder(os.Stdout).Encode(r))
}

// serve serves HTTP until SIGTERM: /read?path= returns a file, and /healthy fails while /tmp/sick exists. At its end it
// writes a file to /shared.
func serve(addr string, paths []string) {
	printReport(paths)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	http.HandleFunc("/read", func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, r.URL.Query().Get("path"))
	})
	http.HandleFunc("/healthy", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat("/tmp/sick"); err == nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	http.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { check(os.WriteFile("/tmp/sick", nil, 0o600)) })
	go func() { check(http.ListenAndServe(addr, nil)) }()
	<-term
	f, err := os.OpenFile("/shared/ends", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	check(err)
	_, err = fmt.Fprintln(f, os.Getenv("NAME"))
	check(err)
}
