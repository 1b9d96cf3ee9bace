package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// drain is how long open writes may take when the sidecar ends.
const drain = time.Second

// openRelay creates the relay, opens its port, and records the address. After that the relay
// blocks can be served. It fails if the memory volume cannot be written.
func (s *server) openRelay() (net.Listener, error) {
	dir := filepath.Dir(s.config.Credentials)
	mode := fs.FileMode(0o444)
	if s.config.Private {
		mode = 0o400
	}
	password, err := relay.Password(dir, mode)
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	if port := s.config.RelayPort; port != 0 {
		if err := relay.KeepPort(dir, int(port)); err != nil {
			return nil, fmt.Errorf("relay: %w", err)
		}
	}
	s.mu.Lock()
	s.password = password
	s.mu.Unlock()
	listener, err := relay.Listen(dir)
	address, known := relay.Address(dir)
	if err == nil {
		address, known = listener.Addr().String(), true
	}
	if known {
		s.mu.Lock()
		for _, d := range s.destinations {
			d.relayed = d.block.ByRelay(address, relay.PasswordFile(dir))
		}
		s.mu.Unlock()
	}
	if err != nil {
		return nil, fmt.Errorf("relay: %w", err)
	}
	return listener, nil
}

// serveRelay serves until ctx ends. After a restart another process may have the port for a
// while; Prometheus keeps its samples until then.
func (s *server) serveRelay(ctx context.Context) {
	listener := s.listener
	for told := ""; ; {
		var err error
		if listener == nil {
			listener, err = s.openRelay()
		}
		if err == nil {
			err = s.relay.Serve(ctx, listener, drain)
			listener = nil
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			s.log.Error("the relay does not serve, will try again", "error", err)
		}
		if !sleep(ctx, pause/4) {
			return
		}
	}
}

// newRelay creates the relay for all destinations, because those with sigv4 may move to it.
func (s *server) newRelay() (*relay.Relay, error) {
	options := relay.Options{
		Logger: s.log,
		Bounds: relay.Bounds{Bytes: sidecarconfig.BudgetOf(s.memory).Bodies},
		Password: func() string {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.password
		},
		Session: s.sessionForRelay,
		Expired: s.renewNow,
	}
	for _, d := range s.destinations {
		transport, err := transportTo(d.AMP)
		if err != nil {
			s.log.Error("cannot set up the connection to AMP", "destination", d.Name, "error", err)
			transport = unusable{err}
		}
		options.Destinations = append(options.Destinations, relay.Destination{
			Name: d.Name, Path: d.block.RelayPath(), URL: d.block.URL, Region: d.Region,
			RetryOn429: !d.AMP.DropOn429, Transport: transport,
		})
	}
	return relay.New(options)
}

// unusable is the transport for a destination with wrong settings. Its samples wait.
type unusable struct{ err error }

// RoundTrip implements [http.RoundTripper].
func (u unusable) RoundTrip(request *http.Request) (*http.Response, error) {
	return nil, errors.Join(u.err, request.Body.Close())
}

// transportTo returns a transport to AMP through the policy's proxy and with its CAs.
func transportTo(amp sidecarconfig.AMP) (http.RoundTripper, error) {
	proxy := func(*http.Request) (*url.URL, error) { return nil, nil }
	switch {
	case amp.ProxyFromEnvironment:
		proxy = http.ProxyFromEnvironment
	case amp.ProxyURL != "":
		at, err := url.Parse(amp.ProxyURL)
		if err != nil {
			return nil, fmt.Errorf("remoteWrite.proxyURL: %w", err)
		}
		proxy = http.ProxyURL(at)
	}
	roots, err := session.Roots(amp.CABundle)
	if err != nil {
		return nil, fmt.Errorf("remoteWrite.caBundle %w", err)
	}
	return relay.NewTransport(proxy, roots), nil
}

// sessionForRelay returns the session to sign with. During a move there is none, because the
// block with sigv4 must first send its queue.
func (s *server) sessionForRelay(name string) session.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.destinations {
		if held := d.delivery == sidecarconfig.DeliveryMoving && time.Since(d.movedAt) < holdLimit; d.Name == name && !held {
			return d.session()
		}
	}
	return session.Session{}
}

// renewNow requests the next session at once, because AMP reports that this one has expired.
func (s *server) renewNow(name string) {
	for _, d := range s.destinations {
		if d.Name == name {
			select {
			case d.expired <- struct{}{}:
			default: // a request is already waiting
			}
		}
	}
}
