package audit

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestStatusAddress reads no address but a running injected pod's own.
func TestStatusAddress(t *testing.T) {
	const injected = `{"metadata": {"annotations": {"ampbridge.io/injected": "{}"}}, "status": {"podIP": "10.1.2.3"},
		"spec": {"initContainers": [{"name": "ampbridge-config", "ports": [{"name": "ampbridge", "containerPort": 19095}]}]}}`
	for _, c := range []struct{ name, merge, want string }{
		{"injected", "{}", "10.1.2.3:19095"},
		{"IPv6", `{"status": {"podIP": "2001:db8::7"}}`, "[2001:db8::7]:19095"},
		{"not injected", `{"metadata": {"annotations": null}}`, ""},
		{"on the host's network", `{"spec": {"hostNetwork": true}}`, ""},
		{"pending", `{"status": {"phase": "Pending"}}`, ""},
		{"ended", `{"status": {"phase": "Failed"}}`, ""},
		{"terminating", `{"metadata": {"deletionTimestamp": "2026-01-02T03:04:05Z"}}`, ""},
		{"no address yet", `{"status": {"podIP": ""}}`, ""},
		{"a name", `{"status": {"podIP": "kubernetes.default"}}`, ""},
		{"no port", `{"spec": {"initContainers": [{"name": "ampbridge-config"}]}}`, ""},
		{"another's port", `{"spec": {"initContainers": [{"name": "other", "ports": [{"containerPort": 80}]}]}}`, ""},
		{"not a port", `{"spec": {"initContainers": [{"name": "ampbridge-config", "ports": [{"containerPort": 65536}]}]}}`, ""},
		{"loopback", `{"status": {"podIP": "127.0.0.1"}}`, ""},
		{"loopback in IPv6", `{"status": {"podIP": "::ffff:127.0.0.1"}}`, ""},
		{"EC2's metadata", `{"status": {"podIP": "169.254.169.254"}}`, ""},
		{"EC2's metadata in IPv6", `{"status": {"podIP": "fd00:ec2::254"}}`, ""},
		{"multicast", `{"status": {"podIP": "224.0.0.1"}}`, ""},
		{"unspecified", `{"status": {"podIP": "0.0.0.0"}}`, ""},
		{"with a zone", `{"status": {"podIP": "fe80::1%eth0"}}`, ""},
	} {
		got := decodePod(t, podWith(t, podWith(t, podText, injected), c.merge)).statusAddress()
		if text := got.String(); c.want != "" && text != c.want || c.want == "" && got.IsValid() {
			t.Errorf("%s: %s, want %q", c.name, text, c.want)
		}
	}
}

// serve starts a server and returns a pod at its address.
func serve(t *testing.T, handler http.HandlerFunc) observed {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return observed{status: netip.MustParseAddrPort(server.Listener.Addr().String())}
}

func encode(t *testing.T, s sidecarconfig.Status) string {
	t.Helper()
	text, err := json.Marshal(s)
	testkit.Must(t, err)
	return string(text)
}

func TestReadSidecars(t *testing.T) {
	now := time.Now()
	notTaken := encode(t, sidecarconfig.Status{Started: now, Time: now, Destinations: []sidecarconfig.DestinationStatus{
		{Name: "central", Delivery: sidecarconfig.DeliverySigV4, Valid: true, NotTaken: true},
	}})
	answer := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, text) }
	}
	var elsewhere atomic.Int32
	secret := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = fmt.Fprint(w, notTaken)
	}))
	defer secret.Close()
	for _, c := range []struct {
		name    string
		handler http.HandlerFunc
		read    bool
	}{
		{"a status", func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Path != sidecarconfig.StatusPath || r.Header.Get("Authorization") != "" {
				t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
			}
			answer(notTaken)(w, r)
		}, true},
		{"a redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, secret.URL, http.StatusFound) }, false},
		{"an error with a status", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = fmt.Fprint(w, notTaken)
		}, false},
		{"something else", answer("<html>"), false},
		{"too much", answer(strings.TrimSuffix(notTaken, "}") + `,"more":"` + strings.Repeat("x", maxStatus) + `"}`), false},
		{"without an end", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := fmt.Fprint(w, strings.Repeat(" ", 4096)); err != nil {
					return
				}
			}
		}, false},
		{"endless headers", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxReadHeader))
			_, _ = fmt.Fprint(w, notTaken)
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			pods := []observed{serve(t, c.handler), {}}
			read, unread := newSidecars().read(t.Context(), pods, now)
			if c.read != (len(pods[0].news) == 1) || c.read == pods[0].unread || read+unread != 1 || pods[1].unread {
				t.Errorf("%d read, %d unread: %+v", read, unread, pods)
			}
			if c.read && pods[0].news[0].Reason != check.SessionNotTaken {
				t.Errorf("%+v", pods[0].news)
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect was followed")
	}
}

// TestPodsThatHangAreBounded: pods that take connections and never answer take a round's
// time at most, few at once, and the next round begins with those that had no turn.
func TestPodsThatHangAreBounded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	defer func() { _ = listener.Close() }()
	var mu sync.Mutex
	open, most := 0, 0
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open++
			most = max(most, open)
			mu.Unlock()
			go func() {
				buffer := make([]byte, 1024)
				for {
					if _, err := conn.Read(buffer); err != nil {
						break
					}
				}
				mu.Lock()
				open--
				mu.Unlock()
				_ = conn.Close()
			}()
		}
	}()
	pods := make([]observed, 200)
	for i := range pods {
		pods[i].status = netip.MustParseAddrPort(listener.Addr().String())
	}
	well := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprint(w, `{"started":"2026-01-01T00:00:00Z","destinations":[]}`)
	})
	pods[150] = well
	s := newSidecars()
	s.limit, s.client.Timeout = 400*time.Millisecond, 50*time.Millisecond
	rounds := 0
	for pods[150].unread = true; pods[150].unread && rounds < 20; rounds++ {
		s.read(t.Context(), pods, time.Now())
	}
	if rounds == 1 || rounds >= 20 {
		t.Errorf("the pod that answers had its turn in round %d", rounds)
	}
	mu.Lock()
	defer mu.Unlock()
	// The server sees a connection end a little later than the client.
	if most > 4*readersAtOnce {
		t.Errorf("%d connections at once", most)
	}
}
