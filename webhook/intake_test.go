package webhook_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// Stalled connections, also more of them than there are turns, prevent no injection and use little
// memory.
func TestStalledBodies(t *testing.T) {
	w, client := runReady(t)
	roots := client.Transport.(*http.Transport).TLSClientConfig
	filler := []byte(strings.Repeat(" ", 1<<20))
	for _, test := range []struct {
		name     string
		n        int
		header   string
		sent     int
		perStall int // bytes
	}{
		{"7 MB, almost complete", 60, "Content-Length: 7340032", 7<<20 - 1, 256 << 10},
		{"1 MB, almost complete", 60, "Content-Length: 1048576", 1<<20 - 1, 256 << 10},
		{"in chunks", 60, "Transfer-Encoding: chunked", 900 << 10, 256 << 10},
		{"small bodies, more than there are turns", 200, "Content-Length: 65000", 64_999, 256 << 10},
		{"nothing after the header", 200, "Content-Length: 65000", 0, 256 << 10},
		{"headers that do not end", 300, "X-Long: " + strings.Repeat("x", 8000), 0, 256 << 10},
		{"no request at all", 400, "", 0, 256 << 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := heap()
			for range test.n {
				conn, err := tls.Dial("tcp", w.Addr, roots)
				if err != nil {
					continue // the webhook may close connections beyond its limit
				}
				t.Cleanup(func() { _ = conn.Close() })
				go func() {
					if test.header == "" {
						return
					}
					_, _ = fmt.Fprintf(
						conn,
						"POST /pods/enabled HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n%s\r\n",
						test.header,
					)
					if strings.HasPrefix(test.header, "X-Long") {
						return
					}
					_, _ = io.WriteString(conn, "\r\n")
					if test.header == "Transfer-Encoding: chunked" {
						_, _ = fmt.Fprintf(conn, "%x\r\n", 1<<20)
					}
					for left := test.sent; left > 0; left -= len(filler) {
						if _, err := conn.Write(filler[:min(left, len(filler))]); err != nil {
							return
						}
					}
				}()
			}
			for range 20 {
				if answer := w.sendPod(client); answer.Patch == nil {
					t.Fatalf("with stalled bodies: got no patch, warnings %q", answer.Warnings)
				}
				time.Sleep(10 * time.Millisecond)
			}
			// The heap includes both ends of the connections.
			if grown, most := int64(heap())-int64(before), int64(test.n*test.perStall); grown > most {
				t.Errorf("the heap grew by %d bytes, want at most %d", grown, most)
			}
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A body that does not arrive in time ends its request, and a metric counts it.
func TestBodyTimeout(t *testing.T) {
	w, client := runReady(t)
	t.Run("HTTP/1.1", func(t *testing.T) {
		conn, err := tls.Dial("tcp", w.Addr, client.Transport.(*http.Transport).TLSClientConfig)
		testkit.Must(t, err)
		defer func() { _ = conn.Close() }()
		testkit.Must(t, conn.SetDeadline(time.Now().Add(time.Minute)))
		if _, err := io.WriteString(
			conn,
			"POST /pods/enabled HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n{",
		); err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		testkit.Must(t, err)
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusRequestTimeout {
			t.Errorf("got %d, want 408", answer.StatusCode)
		}
	})
	t.Run("HTTP/2.0", func(t *testing.T) {
		body, stall := io.Pipe()
		defer func() { _ = stall.Close() }()
		go func() { _, _ = io.WriteString(stall, `{"kind":`) }()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+w.Addr+"/pods/enabled", body)
		testkit.Must(t, err)
		r.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(r)
		if err == nil { // or the stream was reset
			_ = answer.Body.Close()
			if answer.Proto != "HTTP/2.0" || answer.StatusCode != http.StatusRequestTimeout {
				t.Errorf("got %s, %d, want 408", answer.Proto, answer.StatusCode)
			}
		}
		if ctx.Err() != nil {
			t.Error("the request was not ended within a minute")
		}
	})
	answer, err := http.Get("http://" + w.MetricsAddr + "/metrics")
	testkit.Must(t, err)
	want := `ampbridge_admission_requests_refused_total{status="408"} 2`
	if text := testkit.ReadBody(t, answer); !strings.Contains(text, want) {
		t.Errorf("/metrics lacks %s", want)
	}
}

// Any input gets a valid answer, within the limits.
func FuzzHandler(f *testing.F) {
	p, err := policy.Parse(readFile(f, "testdata/policy.yaml"))
	testkit.Must(f, err)
	registry := prometheus.NewRegistry()
	handler := webhook.PodHandler(policy.InjectionEnabled, webhook.Dependencies{
		Policy: func() *policy.Policy { return p }, Cluster: answering(func() {}), Image: image,
		Metrics: webhook.NewMetrics(registry), Logger: discard,
	})
	for _, file := range []string{operatorPod, chartPod} {
		f.Add(encode(f, podRequest(f, file, nil)))
		f.Add(encode(f, podRequest(f, file, notPrometheus)))
	}
	f.Add(hostileReview("", repeat(`"containers":[`, "{}", 3_000)))
	f.Add(
		hostileReview(
			`"annotations":{"ampbridge.io/container":"prometheus"}`,
			`"containers":[`+prometheusContainer+`,"args":["--config.file=/a/b"],"volumeMounts":[{"name":"c","mountPath":"/a"}]}],`+
				`"volumes":[{"name":"c","configMap":{"name":"c"}}]`,
		),
	)
	f.Add([]byte(`{"request":{"uid":"` + strings.Repeat("x", 300) + `"}}`))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		status, text, spent := serveOnce(handler, body)
		if most := uint64(maxAllocated); spent > most {
			t.Errorf("%d bytes were allocated for a body of %d", spent, len(body))
		}
		if status == http.StatusOK {
			wantReview(t, text)
		} else if status != http.StatusBadRequest && status != http.StatusRequestEntityTooLarge || len(text) > 1000 {
			t.Errorf("got %d: %s", status, text)
		}
	})
}
