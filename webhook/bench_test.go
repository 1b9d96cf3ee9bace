package webhook_test

import (
	"bytes"
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
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// BenchmarkPod measures the handler without the network. `go run ./test/bench` measures what an API
// server sees.
func BenchmarkPod(b *testing.B) {
	for _, bench := range []struct {
		name string
		edit func(map[string]any)
	}{{"inject", nil}, {"skip", notPrometheus}} {
		b.Run(bench.name, func(b *testing.B) {
			measure(b, encode(b, podRequest(b, operatorPod, bench.edit)), webhookOn)
		})
	}
}

// BenchmarkSkip measures how long the token reader needs to skip the review of BenchmarkPod/inject.
// No decoder can be faster.
func BenchmarkSkip(b *testing.B) {
	measure(b, encode(b, podRequest(b, operatorPod, nil)), skipping)
}

// measure measures what prepare returns for a review.
func measure(b *testing.B, body []byte, prepare func(*testing.B, []byte) func()) {
	run := prepare(b, body)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

// BenchmarkPodToSkip runs both in turns, so that other load on the machine affects both. It reports
// two ratios: that of the medians, and that of the sums, which include garbage collection and other
// programs.
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
	b.ReportMetric(0, "ns/op") // it would be the time of both
}

// webhookOn returns a function that lets the handler answer a review.
func webhookOn(b *testing.B, body []byte) func() {
	p := policytest.Parse(b, testkit.ReadFile(b, "testdata/policy.yaml"))
	handler := webhook.PodHandler(policy.InjectionEnabled, webhook.Dependencies{
		Policy: func() *policy.Policy { return p }, Cluster: answering(func() {}), Image: image,
		Metrics: webhook.NewMetrics(prometheus.NewRegistry()), Logger: slog.New(slog.DiscardHandler),
	})
	// In production the server creates request and writer, so they are created only once here.
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

// skipping returns a function that lets the token reader skip a review.
func skipping(b *testing.B, body []byte) func() {
	options := jsontext.AllowDuplicateNames(true)
	reader := bytes.NewReader(body)
	decoder := jsontext.NewDecoder(reader, options)
	return func() {
		reader.Reset(body)
		decoder.Reset(reader, options)
		testkit.Must(b, decoder.SkipValue())
	}
}

// writer counts the bytes of the answer.
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
