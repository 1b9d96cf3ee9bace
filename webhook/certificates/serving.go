package certificates

import (
	"bytes"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/webhook/metric"
)

// serving is the certificate that is served now.
type serving struct {
	current atomic.Pointer[tls.Certificate]
	first   sync.Once
	loaded  chan struct{}

	expiry    prometheus.Gauge
	rotations prometheus.Counter
}

func newServing(registry prometheus.Registerer) *serving {
	declare := metric.Declare{Registry: registry}
	return &serving{
		loaded: make(chan struct{}),
		expiry: declare.Gauge("ampbridge_certificate_expiry_timestamp_seconds",
			"When the serving certificate ends, in seconds since 1970; 0 if there is none yet."),
		rotations: declare.Counter("ampbridge_certificate_rotations_total",
			"How often this process has replaced the certificate that it serves."),
	}
}

// serve replaces the certificate for new connections.
func (s *serving) serve(c tls.Certificate) (changed bool) {
	before := s.current.Swap(&c)
	s.expiry.Set(float64(c.Leaf.NotAfter.Unix()))
	s.first.Do(func() { close(s.loaded) })
	if before == nil {
		return true
	}
	if bytes.Equal(before.Leaf.Raw, c.Leaf.Raw) {
		return false
	}
	s.rotations.Inc()
	return true
}

// Loaded returns a channel that is closed when there is a certificate to serve.
func (s *serving) Loaded() <-chan struct{} { return s.loaded }

// GetCertificate is for [tls.Config].
func (s *serving) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c := s.current.Load(); c != nil {
		return c, nil
	}
	return nil, errors.New("no serving certificate is loaded")
}
