package webhook

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// What connections may hold in memory at one time; requests have bounds of their
// own, see [Intake].
const (
	// maxConnections of the webhook. An API server keeps a few, and opens one for
	// each pod of a burst.
	maxConnections = 256
	// maxObservers are the connections to health, and to metrics: the kubelet's and
	// Prometheus's.
	maxObservers = 16
	// readTimeout bounds a TLS handshake, and a request from its first byte to its
	// last. The API server waits for no more than that by default.
	readTimeout = 5 * time.Second
	// writeTimeout bounds a request with its answer; look-ups take two seconds.
	writeTimeout = 15 * time.Second
	idleTimeout  = 90 * time.Second
	// maxHeader bounds a request's header, in bytes.
	maxHeader = 16 << 10
	// drainTimeout bounds how long requests in flight hold up the end.
	drainTimeout = time.Minute
)

// newServer returns a server whose connections are bounded in number, size and
// time.
func newServer(handler http.Handler, connections int) *http.Server {
	c := &connectionLimit{max: connections, places: map[net.Conn]*list.Element{}}
	return &http.Server{
		Handler: handler, ConnState: c.observe,
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxRequests, MaxReadFrameSize: 16 << 10,
			MaxReceiveBufferPerStream: smallReview, MaxReceiveBufferPerConnection: 4 * smallReview,
		},
	}
}

// listenAndServe serves until the context ends, and then for as long as requests
// are in flight, but not longer than the drain. Listening is called once the
// address is taken. With a TLS configuration it serves HTTPS.
func listenAndServe(
	ctx context.Context,
	server *http.Server,
	addr string,
	secure *tls.Config,
	drain time.Duration,
	listening func(),
) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	if listening != nil {
		listening()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		_ = server.Shutdown(ending) // what is still in flight then is cut off
	}()
	if secure == nil {
		err = server.Serve(listener)
	} else {
		server.TLSConfig = secure
		err = server.ServeTLS(listener, "", "")
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-stopped
	return nil
}

// connectionLimit bounds a server's connections. Where there is one too many, it
// closes the one that has been without a request for longest: first one that
// never had any, so that the API server keeps its connections when others open
// theirs and say nothing.
type connectionLimit struct {
	max int

	mu sync.Mutex
	// places has every open connection; nil: it has a request.
	places      map[net.Conn]*list.Element
	fresh, idle list.List // of net.Conn, longest first
}

// observe is for [http.Server].ConnState.
func (c *connectionLimit) observe(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.places[conn]; e != nil {
		c.fresh.Remove(e) // a list ignores the other's elements
		c.idle.Remove(e)
	}
	switch state {
	case http.StateNew:
		c.places[conn] = c.fresh.PushBack(conn)
	case http.StateIdle:
		c.places[conn] = c.idle.PushBack(conn)
	case http.StateActive:
		c.places[conn] = nil
	default:
		delete(c.places, conn)
	}
	if state != http.StateNew || len(c.places) <= c.max {
		return
	}
	victim := c.fresh.Front()
	if idle := c.idle.Front(); idle != nil && (victim == nil || victim.Value == conn) {
		victim = idle
	}
	if victim == nil {
		return // all have requests, which are bounded by the intake
	}
	closed := victim.Value.(net.Conn)
	c.fresh.Remove(victim)
	c.idle.Remove(victim)
	c.places[closed] = nil // until the server notices
	// Below TLS: its own farewell could wait for the client.
	if secure, ok := closed.(*tls.Conn); ok {
		closed = secure.NetConn()
	}
	_ = closed.Close()
}

// listenError names the server that could not listen or serve.
func listenError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("webhook: %s: %w", name, err)
}
