package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ampbridge/ampbridge/test/awstest"
)

// sink acts as AMP: it decodes every sample, and counts them by workspace and by the time of the
// scrape.
type sink struct {
	mu     sync.Mutex
	counts map[string]map[int64]int
	delay  time.Duration
	fail   bool
}

// serveSink serves the sink with TLS, and its control without TLS.
func serveSink(ctx context.Context, addr, control, certs string) error {
	s := &sink{counts: map[string]map[int64]int{}}
	writes := &http.Server{Addr: addr, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(s.write)}
	controls := &http.Server{Addr: control, ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(s.control)}
	ended := make(chan error, 2)
	go func() {
		ended <- writes.ListenAndServeTLS(filepath.Join(certs, "tls.crt"), filepath.Join(certs, "tls.key"))
	}()
	go func() { ended <- controls.ListenAndServe() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return nil
	}
}

func (s *sink) write(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	delay, fail := s.delay, s.fail
	s.mu.Unlock()
	time.Sleep(delay)
	if fail {
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	workspace, found := strings.CutPrefix(r.URL.Path, "/workspaces/")
	if !found { // /raw
		return
	}
	workspace, _, _ = strings.Cut(workspace, "/")
	here := map[int64]int{}
	if err := awstest.EachSample(body, func(at int64) { here[at]++ }); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts[workspace] == nil {
		s.counts[workspace] = map[int64]int{}
	}
	for at, n := range here {
		s.counts[workspace][at] += n
	}
}

// control answers /delay, /fail and /counts, each with ?value=.
func (s *sink) control(w http.ResponseWriter, r *http.Request) {
	value := r.URL.Query().Get("value")
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r.URL.Path {
	case "/delay":
		s.delay, _ = time.ParseDuration(value) // only this program sends it
	case "/fail":
		s.fail = value == "true"
	case "/counts":
		_ = json.NewEncoder(w).Encode(s.counts[value]) // the reader notices a missing answer
	}
}

// serveExporter serves the given number of series.
func serveExporter(ctx context.Context, addr string, series int) error {
	var text strings.Builder
	text.WriteString("# TYPE bench_bytes_total counter\n")
	for n := range series {
		fmt.Fprintf(&text, "bench_bytes_total{instance=\"10.0.0.1:9100\",pod=\"server-%d\",device=\"eth%d\"} %d\n", n/10, n%10, n*7919)
	}
	body := []byte(text.String())
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write(body) // an error means that the client has disconnected
	})
	server := &http.Server{Addr: addr, ReadHeaderTimeout: 10 * time.Second, Handler: metrics}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil
}
