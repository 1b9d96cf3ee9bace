package webhook_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// BenchmarkPod is the handler without the network: `go run ./test/bench` has
// the figures that matter to an API server.
func BenchmarkPod(b *testing.B) {
	for _, bench := range []struct {
		name string
		edit func(map[string]any)
	}{{"inject", nil}, {"skip", notPrometheus}} {
		b.Run(bench.name, func(b *testing.B) {
			p, err := policy.Parse(readFile(b, "testdata/policy.yaml"))
			if err != nil {
				b.Fatal(err)
			}
			body := encode(b, podRequest(b, operatorPod, bench.edit))
			handler := webhook.PodHandler(policy.InjectionEnabled, webhook.Dependencies{
				Policy: func() *policy.Policy { return p }, Cluster: answering{}, Image: image,
				Metrics: webhook.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
			})
			// The request and the writer are the server's, so they are made once.
			content := bytes.NewReader(body)
			r := httptest.NewRequest(http.MethodPost, "/pods/enabled", content)
			r.Header.Set("Content-Type", "application/json")
			r.Body = io.NopCloser(content)
			w := &writer{header: http.Header{}}
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				content.Reset(body)
				w.status, w.size = http.StatusOK, 0
				if handler.ServeHTTP(w, r); w.status != http.StatusOK || w.size == 0 {
					b.Fatalf("got %d, %d bytes", w.status, w.size)
				}
			}
		})
	}
}

// writer counts what is answered.
type writer struct {
	header       http.Header
	status, size int
}

func (w *writer) Header() http.Header    { return w.header }
func (w *writer) WriteHeader(status int) { w.status = status }
func (w *writer) Write(b []byte) (int, error) {
	w.size += len(b)
	return len(b), nil
}

// BenchmarkSkip is the time in which the token reader skips the review that
// BenchmarkPod/inject is about: no decoding takes less.
func BenchmarkSkip(b *testing.B) {
	body := encode(b, podRequest(b, operatorPod, nil))
	options := jsontext.AllowDuplicateNames(true)
	reader := bytes.NewReader(body)
	decoder := jsontext.NewDecoder(reader, options)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		reader.Reset(body)
		decoder.Reset(reader, options)
		if err := decoder.SkipValue(); err != nil {
			b.Fatal(err)
		}
	}
}

// answering is a cluster without limits whose service accounts all exist.
type answering struct{}

func (answering) ServiceAccount(context.Context, string, string) (map[string]string, error) {
	return nil, nil
}
func (answering) ServiceAccountAndLimits(context.Context, string, string) (map[string]string, inject.Limits, error) {
	return nil, inject.Limits{}, nil
}
