package webhook_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

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
			body := encode(b, podRequest(b, operatorPod, bench.edit))
			answer := webhookOn(b, body)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				answer()
			}
		})
	}
}

// BenchmarkSkip is the time in which the token reader skips the review that
// BenchmarkPod/inject is about: no decoding takes less.
func BenchmarkSkip(b *testing.B) {
	body := encode(b, podRequest(b, operatorPod, nil))
	skip := skipping(b, body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		skip()
	}
}

// BenchmarkPodToSkip takes the two by turns, so that what else the machine does hits both,
// and reports their ratio: of the medians, and of the sums, in which garbage collection and
// other programs count.
func BenchmarkPodToSkip(b *testing.B) {
	body := encode(b, podRequest(b, operatorPod, nil))
	var took [2][]time.Duration
	runs := []func(){webhookOn(b, body), skipping(b, body)}
	for b.Loop() {
		for i, run := range runs {
			start := time.Now()
			run()
			took[i] = append(took[i], time.Since(start))
		}
	}
	var median, sum [2]float64
	for i := range took {
		slices.Sort(took[i])
		median[i] = float64(took[i][len(took[i])/2])
		for _, d := range took[i] {
			sum[i] += float64(d)
		}
	}
	b.ReportMetric(median[0]/median[1], "median/skip")
	b.ReportMetric(sum[0]/sum[1], "sum/skip")
	b.ReportMetric(median[0], "median-ns")
	b.ReportMetric(0, "ns/op") // it would be that of both
}

// webhookOn returns what has the handler answer a review.
func webhookOn(b *testing.B, body []byte) func() {
	p, err := policy.Parse(readFile(b, "testdata/policy.yaml"))
	if err != nil {
		b.Fatal(err)
	}
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
	return func() {
		content.Reset(body)
		w.status, w.size = http.StatusOK, 0
		if handler.ServeHTTP(w, r); w.status != http.StatusOK || w.size == 0 {
			b.Fatalf("got %d, %d bytes", w.status, w.size)
		}
	}
}

// skipping returns what has the token reader skip a review.
func skipping(b *testing.B, body []byte) func() {
	options := jsontext.AllowDuplicateNames(true)
	reader := bytes.NewReader(body)
	decoder := jsontext.NewDecoder(reader, options)
	return func() {
		reader.Reset(body)
		decoder.Reset(reader, options)
		if err := decoder.SkipValue(); err != nil {
			b.Fatal(err)
		}
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

// answering is a cluster without limits whose service accounts all exist.
type answering struct{}

func (answering) ServiceAccount(context.Context, string, string) (map[string]string, error) {
	return nil, nil
}
func (answering) ServiceAccountAndLimits(context.Context, string, string) (map[string]string, inject.Limits, error) {
	return nil, inject.Limits{}, nil
}
