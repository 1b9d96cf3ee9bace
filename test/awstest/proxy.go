package awstest

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// StartProxy serves an HTTP proxy that connects each CONNECT request to TLSURL, whatever host the request names. So a
// client reaches the double under AWS's own host names, and the double checks the region of each signature. It returns
// the proxy's URL. The proxy stops when the test ends.
func (c *Cloud) StartProxy(tb testing.TB) string {
	tb.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		Tunnel(w, r, func() (net.Conn, error) {
			return new(net.Dialer).DialContext(r.Context(), "tcp", strings.TrimPrefix(c.TLSURL, "https://"))
		})
	}))
	tb.Cleanup(server.Close)
	return server.URL
}

// Tunnel answers a CONNECT request, as a proxy does, with a connection that dial opens.
func Tunnel(w http.ResponseWriter, r *http.Request, dial func() (net.Conn, error)) {
	if r.Method != http.MethodConnect {
		http.Error(w, "this proxy takes CONNECT requests only", http.StatusMethodNotAllowed)
		return
	}
	there, err := dial()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = there.Close()
		return
	}
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
	go func() { _, _ = io.Copy(here, there); _ = here.Close() }()
}
