package sidecar

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
)

// queueMetrics are the metrics that doctor reads to learn whether samples arrive, and by
// which it knows Prometheus's start and its clock. A name that ends in _ is a prefix.
var queueMetrics = []string{
	"prometheus_remote_storage_", "process_start_time_seconds", "go_memstats_last_gc_time_seconds",
}

// serveQueues answers with Prometheus's own metrics of the blocks that the sidecar serves.
// Prometheus may listen only on a loopback address, or on a port that the API server does
// not reach. Metrics of other entries of remote_write are left out: their URLs are not for
// everyone who reaches this port.
func (s *server) serveQueues(w http.ResponseWriter, request *http.Request) {
	if s.config.Prometheus.Address == "" {
		http.Error(w, "the address of Prometheus is not known", http.StatusNotFound)
		return
	}
	if !s.reading.TryLock() {
		http.Error(w, "another request reads Prometheus's metrics", http.StatusTooManyRequests)
		return
	}
	defer s.reading.Unlock()
	var own []string
	s.mu.Lock()
	for _, d := range s.destinations {
		own = append(own, fmt.Sprintf("remote_name=%q", d.block.Name), d.block.RelayPath()+`"`)
	}
	s.mu.Unlock()
	var kept bytes.Buffer
	err := readPage(request.Context(), localClient(), s.config.Prometheus, func(page io.Reader) error {
		return keepQueues(&kept, page, own)
	})
	if err != nil {
		http.Error(w, "Prometheus's metrics cannot be read: "+err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	_, _ = w.Write(kept.Bytes()) // the client has gone
}

// keepQueues copies the lines of [queueMetrics] without labels, and those with a label of
// the pod's own blocks.
func keepQueues(kept *bytes.Buffer, page io.Reader, own []string) error {
	lines := bufio.NewScanner(page)
	for lines.Scan() {
		line := lines.Text()
		name := line[:max(0, strings.IndexAny(line, "{ "))]
		known := slices.ContainsFunc(queueMetrics, func(m string) bool {
			return name == m || strings.HasSuffix(m, "_") && strings.HasPrefix(name, m)
		})
		labelled := strings.HasPrefix(line[len(name):], "{")
		if !known || labelled && !slices.ContainsFunc(own, func(label string) bool { return strings.Contains(line, label) }) {
			continue
		}
		kept.WriteString(line)
		kept.WriteByte('\n')
		if kept.Len() > maxKept {
			return fmt.Errorf("the metrics of remote_write are longer than %d bytes", maxKept)
		}
	}
	return lines.Err()
}
