package sidecar

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"syscall"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

const (
	// dialEvery is how often a Prometheus that does not listen is looked for.
	dialEvery = 100 * time.Millisecond
	// ask is how often one that listens is asked whether it is ready, and
	// answer how long it may take.
	ask, answer = 250 * time.Millisecond, 2 * time.Second
	// settled is after how long one that does not say whether it is ready, such
	// as one with basic authentication, counts as ready.
	settled = 15 * time.Minute
	// versionAttempts bounds how often the version is asked for after a start.
	versionAttempts = 10
)

// prometheusState is what the sidecar observes of the pod's Prometheus.
type prometheusState struct {
	// dialed: at least one attempt was made. fresh: it was not there at first,
	// so that its start has been seen.
	dialed, fresh bool
	listening     bool
	// ready since it began to listen. Prometheus opens its port before it
	// replays its WAL and applies its configuration.
	ready bool
	// version is zero while it is not known; asked: it has been asked for.
	version policy.Version
	asked   bool
	// ended is when it was last seen to end.
	ended time.Time
}

// watches reports whether anything depends on what Prometheus does: a pod that
// only starts it, or a block with fields for certain versions.
func (s *server) watches() bool {
	return s.config.Prometheus.Address != "" && (s.startOnly() || s.wantsVersion())
}

func (s *server) wantsVersion() bool {
	return slices.ContainsFunc(s.destinations, func(d *destination) bool {
		_, omitted := d.block.For(policy.Version{})
		return len(omitted) > 0
	})
}

// watch keeps a connection to Prometheus that says nothing: the kernel closes
// it at the moment the process ends. Prometheus itself closes it after
// --web.read-timeout (5 m), so only a port that refuses means the end.
func (s *server) watch(ctx context.Context) {
	for ctx.Err() == nil {
		connection, scheme, err := s.dial(ctx)
		if err != nil {
			// Anything but a refusal may as well be a Prometheus that is busy.
			refused := errors.Is(err, syscall.ECONNREFUSED)
			s.observe(func(p *prometheusState) {
				p.dialed, p.fresh, p.listening = true, p.fresh || refused, p.listening && !refused
			})
			sleep(ctx, dialEvery)
			continue
		}
		begun := time.Now()
		s.observe(func(p *prometheusState) { p.dialed, p.listening = true, true })
		alive, end := context.WithCancel(ctx)
		stop := context.AfterFunc(ctx, func() { _ = connection.Close() })
		go func() {
			_, _ = io.Copy(io.Discard, connection)
			end()
		}()
		s.question(alive, scheme)
		<-alive.Done()
		stop()
		_ = connection.Close()
		if time.Since(begun) < dialEvery {
			sleep(ctx, dialEvery) // somebody closes every connection
		}
	}
}

// dial connects, and finds out by which scheme Prometheus answers.
func (s *server) dial(ctx context.Context) (connection net.Conn, scheme string, err error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	var dialer net.Dialer
	address := s.config.Prometheus.Address
	if s.config.Prometheus.TLS {
		// A connection to a TLS port that says nothing would be an error in
		// Prometheus's log, and so would one that speaks plain HTTP.
		secure := tls.Dialer{NetDialer: &dialer, Config: unverified()}
		if connection, err = secure.DialContext(ctx, "tcp", address); err == nil {
			return connection, "https", nil
		}
	}
	connection, err = dialer.DialContext(ctx, "tcp", address)
	return connection, "http", err
}

// unverified is for a server of the sidecar's own pod, whose certificate names
// a Service, and to which nothing is sent that anybody could want.
func unverified() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
}

// question asks a Prometheus that listens whether it is ready, and then which
// version it is, until it ends.
func (s *server) question(ctx context.Context, scheme string) {
	if s.prometheusNow().ready && !s.prometheusNow().version.IsZero() {
		return // it has only closed the connection
	}
	client := &http.Client{Timeout: answer, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: unverified()}}
	base := scheme + "://" + s.config.Prometheus.Address + s.config.Prometheus.Prefix
	begun := time.Now()
	for !ready(ctx, client, base, begun) {
		if !sleep(ctx, ask) {
			return
		}
	}
	s.observe(func(p *prometheusState) { p.ready = true })
	for attempt := 1; ; attempt++ {
		running, err := version(ctx, client, base)
		if err == nil || attempt == versionAttempts {
			s.observe(func(p *prometheusState) { p.version, p.asked = running, true })
			return
		}
		if !sleep(ctx, 4*ask) {
			return
		}
	}
}

func ready(ctx context.Context, client *http.Client, base string, begun time.Time) bool {
	status, _, err := get(ctx, client, base+"/-/ready")
	if err == nil && status == http.StatusOK {
		return true
	}
	told := err == nil && status == http.StatusServiceUnavailable
	return !told && time.Since(begun) > settled
}

func version(ctx context.Context, client *http.Client, base string) (policy.Version, error) {
	_, body, err := get(ctx, client, base+"/api/v1/status/buildinfo")
	if err != nil {
		return policy.Version{}, err
	}
	var info struct {
		Data struct {
			Version string `json:"version"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &info); err != nil {
		return policy.Version{}, err
	}
	return policy.ParseVersion(info.Data.Version)
}

func get(ctx context.Context, client *http.Client, url string) (status int, body []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err = io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return response.StatusCode, body, err
}

func (s *server) prometheusNow() prometheusState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.prometheus
}

// observe applies a change of the state, and wakes the loop if the state differs.
func (s *server) observe(change func(*prometheusState)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.prometheus
	change(&s.prometheus)
	now := &s.prometheus
	if before.listening && !now.listening {
		s.ended(before)
		// Another program may start in its place: the image's tag may have moved.
		*now = prometheusState{dialed: true, fresh: true, ended: time.Now()}
	}
	if !before.ready && now.ready && now.fresh {
		s.loaded = slices.Clone(s.served.destinations)
	}
	if *now != before {
		s.wake()
	}
}

// wake has the loop, and who proves that STS answers, look again at once.
func (s *server) wake() {
	wakers := []chan struct{}{s.changed}
	for _, d := range s.destinations {
		wakers = append(wakers, d.changed)
	}
	for _, c := range wakers {
		select {
		case c <- struct{}{}:
		default: // it is going to
		}
	}
}
