package rotation_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/webhook/registration"
)

// probe connects to all endpoints repeatedly until the context ends. It checks the certificate like an API
// server that has just read the configuration, and like one with an older configuration. A real API server
// keeps its connections, so it rarely checks a certificate.
func (f *fixture) probe(ctx context.Context, t *testing.T) (handshakes int) {
	t.Helper()
	const late = timingPropagation / 2
	type known struct {
		at     time.Time
		bundle []byte
	}
	var history []known
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		now := time.Now()
		history = append(history, known{now, f.configuration(t, registration.DefaultName).Webhooks[0].ClientConfig.CABundle})
		for len(history) > 1 && history[1].at.Before(now.Add(-late)) {
			history = history[1:]
		}
		for _, addr := range f.endpoints() {
			conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", addr, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				continue // it has ended, or the API server will report the failure
			}
			leaf := conn.ConnectionState().PeerCertificates[0]
			_ = conn.Close()
			handshakes++
			for _, k := range []known{history[0], history[len(history)-1]} {
				roots := x509.NewCertPool()
				roots.AppendCertsFromPEM(k.bundle)
				if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: fmt.Sprintf("%s.%s.svc", service, home)}); err != nil {
					t.Errorf(
						"%s: an API server that knows the bundle of %s ago does not trust %s: %v",
						now.Format(time.TimeOnly),
						now.Sub(k.at).Round(time.Millisecond),
						addr,
						err,
					)
				}
			}
		}
	}
	return handshakes
}

// endpoints returns the addresses that an API server can call now.
func (f *fixture) endpoints() (all []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr := range f.live {
		all = append(all, addr)
	}
	return all
}

// join and leave update the list of endpoints.
func (f *fixture) join(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.live[addr] = true
}

func (f *fixture) leave(addr string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.live, addr)
}
