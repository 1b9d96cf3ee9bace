package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// load is the result of a number of clients.
type load struct {
	took    time.Duration
	cpu     time.Duration // of clients and server
	samples []time.Duration
}

func (l *load) add(other load) {
	l.took += other.took
	l.cpu += other.cpu
	l.samples = append(l.samples, other.samples...)
}

// rate returns the requests per second.
func (l *load) rate() float64 { return float64(len(l.samples)) / l.took.Seconds() }

// cost returns the processor time of a request, of client and server together.
func (l *load) cost() time.Duration { return l.cpu / time.Duration(max(1, len(l.samples))) }

func (l *load) quantile(q float64) time.Duration {
	if len(l.samples) == 0 {
		return 0
	}
	slices.Sort(l.samples)
	return l.samples[min(int(q*float64(len(l.samples))), len(l.samples)-1)]
}

// String returns the load's columns in the report.
func (l *load) String() string {
	return fmt.Sprintf("  %8.0f %7s %7s", l.rate(), ms(l.quantile(.5)), ms(l.quantile(.99)))
}

// newClient returns a client that behaves like the API server. It keeps connections open: one for
// all requests with HTTP/2, or one for each concurrent request otherwise.
func newClient(ca []byte, http2 bool, clients int) *http.Client {
	var roots *x509.CertPool // the system's, if there is no CA
	if ca != nil {
		roots = x509.NewCertPool()
		roots.AppendCertsFromPEM(ca)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: clients, DisableCompression: true,
	}}
}

// drive lets the clients post the body for the duration. Each client sends the next request when
// its last one is answered.
func drive(ctx context.Context, client *http.Client, url string, body []byte, clients int, duration time.Duration) (load, error) {
	var (
		mu    sync.Mutex
		all   load
		first error
		group sync.WaitGroup
	)
	start := time.Now()
	for range clients {
		group.Go(func() {
			var own []time.Duration
			var err error
			for err == nil && time.Since(start) < duration && ctx.Err() == nil {
				begin := time.Now()
				if _, err = post(ctx, client, url, body); err == nil {
					own = append(own, time.Since(begin))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			all.samples = append(all.samples, own...)
			if first == nil {
				first = err
			}
		})
	}
	group.Wait()
	all.took = time.Since(start)
	return all, first
}

// post returns the size of the answer in bytes.
func post(ctx context.Context, client *http.Client, url string, body []byte) (int, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer func() { _ = answer.Body.Close() }()
	n, err := io.Copy(io.Discard, answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, answer.Status)
	}
	return int(n), err
}
