package relay_test

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// roundTripper counts what would reach AMP.
type roundTripper struct{ requests []*http.Request }

func (r *roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	_ = request.Body.Close()
	r.requests = append(r.requests, request)
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: request}, nil
}

// FuzzRequest sends requests as they come off the wire: only those with the password, for a
// destination of the pod, reach AMP, and only at its own URL.
func FuzzRequest(f *testing.F) {
	const address = "127.0.0.1:9"
	post := "POST " + centralPath + " HTTP/1.1\r\nHost: " + address + "\r\n"
	good := "Authorization: Basic YW1wYnJpZGdlOnNlY3JldA==\r\n" // ampbridge:secret
	f.Add([]byte(post + good + "Content-Length: 3\r\n\r\nabc"))
	f.Add([]byte(post + "Content-Length: 3\r\n\r\nabc"))
	f.Add([]byte(post + good + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"))
	f.Add([]byte(strings.Replace(post, "central", "central/../other", 1) + good + "\r\n"))
	f.Add([]byte(strings.Replace(post, address, "evil.example", 1) + good + "\r\n"))
	f.Add([]byte("GET http://evil.example/ HTTP/1.1\r\n" + good + "\r\n"))
	f.Add([]byte(post + good + "Content-Length: 9223372036854775807\r\n\r\n"))
	local, err := net.ResolveTCPAddr("tcp", address)
	testkit.Must(f, err)
	now := time.Now()
	valid := session.Session{AccessKeyID: "AKIA", SecretAccessKey: "s", Obtained: now, Expires: now.Add(24 * time.Hour)}
	f.Fuzz(func(t *testing.T, wire []byte) {
		request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
		if err != nil {
			return
		}
		amp := &roundTripper{}
		r, err := relay.New(relay.Options{
			Destinations: []relay.Destination{{
				Name: "central", Path: centralPath, URL: "https://amp.example/workspaces/ws-1/api/v1/remote_write",
				Region: region,
			}},
			Password:  func() string { return "secret" },
			Session:   func(string) session.Session { return valid },
			Transport: amp,
			Bounds:    relay.Bounds{Body: 1 << 16, Bytes: 1 << 17, Wait: time.Millisecond},
		})
		testkit.Must(t, err)
		request = request.WithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, local))
		w := httptest.NewRecorder()
		r.ServeHTTP(w, request)
		user, secret, _ := request.BasicAuth()
		allowed := user == policy.RelayUser && secret == "secret" && request.Host == address && request.URL.EscapedPath() == centralPath
		for _, out := range amp.requests {
			if !allowed || out.URL.String() != "https://amp.example/workspaces/ws-1/api/v1/remote_write" {
				t.Fatalf("%s %s reached %s", request.Method, request.URL, out.URL)
			}
		}
		if w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden {
			t.Errorf("answered %d, on which Prometheus drops samples", w.Code)
		}
		if n := metric(t, r, "ampbridge_relay_bytes_in_flight", ""); n != 0 {
			t.Errorf("%v bytes are still in flight", n)
		}
	})
}
