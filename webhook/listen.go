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

// Limits on connections. For the limits on requests see [Intake].
const (
	// maxConnections is how many connections the webhook accepts. An API server keeps a few open,
	// and opens one for each pod of a burst.
	maxConnections = 256
	// maxObservers is how many connections the health server and the metrics server accept. The
	// kubelet and Prometheus need few.
	maxObservers = 16
	// readTimeout limits a TLS handshake, and a request from its first to its last byte. By default
	// the API server waits no longer than that.
	readTimeout = 5 * time.Second
	// writeTimeout limits a request with its answer. Look-ups take up to two seconds.
	writeTimeout = 15 * time.Second
	idleTimeout  = 90 * time.Second
	// maxHeader limits a request's header, in bytes.
	maxHeader = 16 << 10
	// drainTimeout limits how long requests in flight delay the shutdown.
	drainTimeout = time.Minute
)

// newServer returns a server that limits the number, the size and the duration of connections.
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

// listenAndServe serves until the context ends, and then until the requests in flight have ended,
// for at most the drain time. It calls listening when the address is in use. With a TLS
// configuration it serves HTTPS.
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
		_ = server.Shutdown(ending) // cuts off requests that are still in flight then
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

// connectionLimit limits the connections of a server. If there is one too many, it closes the one
// that has been without a request for the longest time. Connections that never had a request are
// closed first. So the API server keeps its connections if others open connections and send
// nothing.
type connectionLimit struct {
	max int

	mu sync.Mutex
	// places has every open connection. The value is nil while the connection has a request.
	places      map[net.Conn]*list.Element
	fresh, idle list.List // of net.Conn, the longest first
}

// observe implements [http.Server].ConnState.
func (c *connectionLimit) observe(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.places[conn]; e != nil {
		c.fresh.Remove(e) // Remove ignores an element of the other list
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
		return // all have requests, which the intake limits
	}
	closed := victim.Value.(net.Conn)
	c.fresh.Remove(victim)
	c.idle.Remove(victim)
	c.places[closed] = nil // until the server notices that it is closed
	// Close the connection below TLS, because closing TLS could wait for the client.
	if secure, ok := closed.(*tls.Conn); ok {
		closed = secure.NetConn()
	}
	_ = closed.Close()
}

// listenError adds the server's name to an error of listening or serving.
func listenError(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("webhook: %s: %w", name, err)
}
