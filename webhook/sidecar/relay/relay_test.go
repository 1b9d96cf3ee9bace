package relay_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/metricstest"
	"github.com/ampbridge/ampbridge/test/remotewrite"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

const (
	region   = "eu-west-1"
	password = "0123456789abcdef"
	// The path of a destination, as policy.Block.RelayPath makes it.
	centralPath = "/ampbridge-central/workspaces/ws-1/api/v1/remote_write"
)

// fixture is a relay before the double of AWS.
type fixture struct {
	cloud     *awstest.Cloud
	workspace *awstest.Workspace
	relay     *relay.Relay
	address   string
	session   session.Session
	expired   int
	log       *testkit.Buffer
}

func newFixture(t *testing.T, change func(*fixture, *relay.Options)) *fixture {
	t.Helper()
	f := &fixture{log: &testkit.Buffer{}}
	f.cloud = awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")})
	account := f.cloud.Account("111122223333")
	f.workspace = account.CreateWorkspace(region, "")
	f.session = sessionOf(account.AdminCredentials())
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(f.cloud.CA)
	o := relay.Options{
		Destinations: []relay.Destination{{
			Name: "central", Path: centralPath, URL: f.workspace.RemoteWriteURL(f.cloud.TLSURL),
			Region: region, RetryOn429: true,
		}},
		Password:  func() string { return password },
		Session:   func(string) session.Session { return f.session },
		Expired:   func(string) { f.expired++ },
		Transport: relay.NewTransport(nil, roots),
		Logger:    slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(f, &o)
	}
	r, err := relay.New(o)
	testkit.Must(t, err)
	f.relay = r
	f.address = serve(t, r, t.TempDir())
	return f
}

// serve runs the relay on the port that dir keeps, until the test ends.
func serve(t *testing.T, r *relay.Relay, dir string) (address string) {
	t.Helper()
	l, err := relay.Listen(dir)
	testkit.Must(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(ctx, l, time.Second) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the relay ended: %v", err)
		}
	})
	return l.Addr().String()
}

func sessionOf(c awstest.Credentials) session.Session {
	return session.Session{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken,
		Obtained: time.Now(), Expires: time.Now().Add(time.Hour),
	}
}

// reply is the relay's answer.
type reply struct {
	status     int
	retryAfter string
	body       string
	header     http.Header
}

// write sends one sample of a metric, as Prometheus does.
func (f *fixture) write(t *testing.T, metric string, change func(*http.Request)) reply {
	t.Helper()
	return f.send(t, remotewrite.Sample(metric, 1, time.Now()), change)
}

func (f *fixture) send(t *testing.T, body []byte, change func(*http.Request)) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.address+centralPath, bytes.NewReader(body))
	testkit.Must(t, err)
	r.Header.Set("Content-Type", "application/x-protobuf")
	r.Header.Set("Content-Encoding", "snappy")
	r.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	r.SetBasicAuth(policy.RelayUser, password)
	if change != nil {
		change(r)
	}
	response, err := http.DefaultTransport.RoundTrip(r)
	testkit.Must(t, err)
	text := testkit.ReadBody(t, response)
	return reply{response.StatusCode, response.Header.Get("Retry-After"), text, response.Header}
}

func (f *fixture) stored(t *testing.T) (n int) {
	t.Helper()
	for _, w := range f.cloud.Writes(f.workspace.ID) {
		if w.Stored() {
			n += w.Samples
		}
	}
	return n
}

func TestWritesAreSignedAndArrive(t *testing.T) {
	f := newFixture(t, nil)
	if got := f.write(t, "relayed", nil); got.status/100 != 2 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	samples, err := f.cloud.Query(t.Context(), f.workspace.ID, "relayed")
	testkit.Must(t, err)
	if len(samples) != 1 {
		t.Errorf("%d samples in the workspace", len(samples))
	}
	// A body of unknown length arrives too.
	got := f.write(t, "chunked", func(r *http.Request) { r.ContentLength, r.Body = -1, struct{ io.ReadCloser }{r.Body} })
	if got.status/100 != 2 || f.stored(t) != 2 {
		t.Errorf("of unknown length: %d %s, %d stored", got.status, got.body, f.stored(t))
	}
	// After a rotation the next write is signed with the new session.
	user, err := f.cloud.Account("111122223333").PutUser("next",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`)
	testkit.Must(t, err)
	f.session = sessionOf(user)
	if got := f.write(t, "rotated", nil); got.status/100 != 2 {
		t.Errorf("after the rotation: %d %s", got.status, got.body)
	}
	if writes := f.cloud.Writes(f.workspace.ID); writes[len(writes)-1].AccessKeyID != user.AccessKeyID {
		t.Error("the new session did not sign")
	}
}

// TestPassingFaultsAreNo4xx: temporary faults are never answered with 4xx, because Prometheus would
// drop the samples.
func TestPassingFaultsAreNo4xx(t *testing.T) {
	respond := func(status int, code, message string) func(*testing.T, *fixture) func() {
		return fault(awstest.Respond(status, code, message))
	}
	for name, c := range map[string]struct {
		fault  func(*testing.T, *fixture) func()
		write  func(*http.Request)
		reason string
	}{
		"another password":  {write: func(r *http.Request) { r.SetBasicAuth(policy.RelayUser, "guess") }, reason: "wrong_password"},
		"an empty password": {write: func(r *http.Request) { r.SetBasicAuth(policy.RelayUser, "") }, reason: "wrong_password"},
		"another user":      {write: func(r *http.Request) { r.SetBasicAuth("admin", password) }, reason: "wrong_password"},
		"no credentials":    {write: func(r *http.Request) { r.Header.Del("Authorization") }, reason: "wrong_password"},
		"no session yet": {reason: "no_session", fault: func(_ *testing.T, f *fixture) func() {
			f.session = session.Session{}
			return nil
		}},
		"a session that is over": {reason: "no_session", fault: func(_ *testing.T, f *fixture) func() {
			f.session.Expires = time.Now().Add(-time.Second)
			return nil
		}},
		"AMP's clock is ahead of the session": {reason: "session_expired", fault: respond(http.StatusForbidden, "ExpiredTokenException",
			"The security token included in the request is expired")},
		"AMP throttles":        {reason: "throttled", fault: fault(awstest.Throttle)},
		"AMP cuts connections": {reason: "unreachable", fault: fault(awstest.Refuse)},
		"AMP does not answer":  {reason: "unreachable", fault: fault(awstest.Hang)},
		"AMP's port is closed": {reason: "unreachable", fault: func(t *testing.T, f *fixture) func() {
			f.cloud.StopListening()
			return func() { testkit.Must(t, f.cloud.StartListening()) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(_ *fixture, o *relay.Options) { o.Bounds.Forward = 2 * time.Second })
			// The double starts a Prometheus for the workspace at its first write.
			testkit.Eventually(t, "a write arrives", func() bool { return f.write(t, "x", nil).status/100 == 2 })
			before := f.stored(t)
			refused := metric(t, f.relay, "ampbridge_relay_refused_total", c.reason)
			good := f.session
			var repair func()
			if c.fault != nil {
				repair = c.fault(t, f)
			}
			got := f.write(t, "x", c.write)
			seconds, err := strconv.Atoi(got.retryAfter)
			if got.status != http.StatusServiceUnavailable || err != nil || seconds < 1 || seconds > 5 {
				t.Errorf("%d, Retry-After %q: %s", got.status, got.retryAfter, got.body)
			}
			if n := metric(t, f.relay, "ampbridge_relay_refused_total", c.reason) - refused; n != 1 {
				t.Errorf("refused with reason %s: %v", c.reason, n)
			}
			if f.stored(t) != before {
				t.Error("a sample got through")
			}
			if repair != nil {
				repair()
			}
			f.session = good
			testkit.Eventually(t, "a write arrives afterwards", func() bool { return f.write(t, "x", nil).status/100 == 2 })
			if text := f.log.String(); strings.Contains(text, password) || strings.Contains(text, good.SecretAccessKey) {
				t.Error("the log holds a secret")
			}
		})
	}
}

func fault(kind awstest.Fault) func(*testing.T, *fixture) func() {
	return func(_ *testing.T, f *fixture) func() { return f.cloud.Fail("aps:RemoteWrite", kind).Stop }
}

func TestAMPsOtherAnswersPass(t *testing.T) {
	for name, c := range map[string]struct {
		fault  awstest.Fault
		status int
	}{
		"denied":       {awstest.Deny, http.StatusForbidden},
		"bad request":  {awstest.Respond(http.StatusBadRequest, "ValidationException", "out of order"), http.StatusBadRequest},
		"server error": {awstest.ServerError, http.StatusInternalServerError},
		"throttled":    {awstest.Throttle, http.StatusTooManyRequests},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, func(_ *fixture, o *relay.Options) { o.Destinations[0].RetryOn429 = false })
			defer f.cloud.Fail("aps:RemoteWrite", c.fault).Stop()
			got := f.write(t, "x", nil)
			if got.status != c.status || got.header.Get("X-Amzn-Requestid") == "" {
				t.Errorf("%d %s", got.status, got.body)
			}
			if f.expired != 0 {
				t.Error("the session counts as expired")
			}
			if last := f.relay.LastFailure("central"); last.Status != c.status || last.Name == "" || last.At.IsZero() {
				t.Errorf("last failure %+v", last)
			}
			if taken := f.relay.LastTaken("central"); !taken.IsZero() {
				t.Errorf("a write was taken at %s", taken)
			}
		})
	}
}

// TestAnswersThatMislead: a redirect would take signed samples to another host, and a long
// pause would delay the recovery.
func TestAnswersThatMislead(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") }))
	defer elsewhere.Close()
	var header http.Header
	status := http.StatusTemporaryRedirect
	amp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header
		w.Header().Set("Location", elsewhere.URL)
		w.Header().Set("Retry-After", "60")
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(status)
	}))
	defer amp.Close()
	f := newFixture(t, func(_ *fixture, o *relay.Options) { o.Destinations[0].URL = amp.URL })
	got := f.write(t, "x", func(r *http.Request) {
		r.Header.Set("Cookie", "a=b")
		r.Header.Set("X-Forwarded-For", "192.0.2.1")
	})
	if got.status != http.StatusServiceUnavailable || got.header.Get("Location") != "" {
		t.Errorf("redirected: %d %v", got.status, got.header)
	}
	for _, name := range []string{"Cookie", "X-Forwarded-For"} {
		if header.Get(name) != "" {
			t.Errorf("header %s was passed on", name)
		}
	}
	if a := header.Get("Authorization"); !strings.HasPrefix(a, "AWS4-HMAC-SHA256 ") {
		t.Errorf("Authorization %q", a)
	}
	status = http.StatusServiceUnavailable
	if got := f.write(t, "x", nil); got.retryAfter != "5" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("%v", got.header)
	}
}

func TestOnlyThePodsDestinationsAreServed(t *testing.T) {
	f := newFixture(t, nil)
	other := f.cloud.Account("111122223333").CreateWorkspace(region, "other")
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"another destination":      {path("/ampbridge-other/workspaces/ws-1/api/v1/remote_write"), http.StatusNotFound},
		"a workspace's own path":   {path("/workspaces/" + other.ID + "/api/v1/remote_write"), http.StatusNotFound},
		"a path that climbs":       {path("/ampbridge-central/../ampbridge-other/api/v1/remote_write"), http.StatusNotFound},
		"an escaped path":          {path("/ampbridge-central%2F..%2Fother/workspaces/ws-1/api/v1/remote_write"), http.StatusNotFound},
		"a query of the workspace": {path("/ampbridge-central/api/v1/query"), http.StatusNotFound},
		"another method":           {func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
		"another host":             {func(r *http.Request) { r.Host = "evil.example" }, http.StatusMisdirectedRequest},
		"localhost by name": {func(r *http.Request) { r.Host = "localhost" + f.address[strings.LastIndex(f.address, ":"):] },
			http.StatusMisdirectedRequest},
	} {
		t.Run(name, func(t *testing.T) {
			if got := f.write(t, "x", c.change); got.status != c.status {
				t.Errorf("%d %s", got.status, got.body)
			}
		})
	}
	if n := len(f.cloud.Writes(f.workspace.ID)) + len(f.cloud.Writes(other.ID)); n != 0 {
		t.Errorf("%d writes reached AMP", n)
	}
}

func path(p string) func(*http.Request) {
	return func(r *http.Request) { r.URL.Opaque = p }
}

// TestBytesInFlightAreBounded: AMP hangs, and more bytes arrive than the limit allows.
func TestBytesInFlightAreBounded(t *testing.T) {
	const most = 1 << 20
	f := newFixture(t, func(_ *fixture, o *relay.Options) {
		o.Bounds = relay.Bounds{Body: most / 2, Bytes: most, Requests: 8, Wait: 50 * time.Millisecond, Forward: time.Minute}
	})
	hang := f.cloud.Fail("aps:RemoteWrite", awstest.Hang)
	body := make([]byte, most/4)
	var group sync.WaitGroup
	var mu sync.Mutex
	counts := map[int]int{}
	for range 20 {
		group.Go(func() {
			got := f.send(t, body, nil)
			mu.Lock()
			defer mu.Unlock()
			counts[got.status]++
		})
	}
	testkit.Eventually(t, "16 refused for want of room", func() bool {
		if n := metric(t, f.relay, "ampbridge_relay_bytes_in_flight", ""); n > most {
			t.Fatalf("%v bytes in flight", n)
		}
		return metric(t, f.relay, "ampbridge_relay_refused_total", "no_room") == 16
	})
	hang.Stop()
	group.Wait()
	testkit.Eventually(t, "all room is back", func() bool {
		return metric(t, f.relay, "ampbridge_relay_bytes_in_flight", "") == 0 &&
			metric(t, f.relay, "ampbridge_relay_requests_in_flight", "") == 0
	})
	if counts[http.StatusServiceUnavailable] < 16 {
		t.Errorf("%v", counts)
	}
	if got := f.send(t, make([]byte, most), nil); got.status != http.StatusRequestEntityTooLarge {
		t.Errorf("a body that is too long: %d", got.status)
	}
	if got := f.write(t, "x", nil); got.status/100 != 2 {
		t.Errorf("afterwards: %d %s", got.status, got.body)
	}
}

// TestShortBodiesGiveTheirRoomBack: a body that is shorter than its Content-Length releases its
// share of the limit.
func TestShortBodiesGiveTheirRoomBack(t *testing.T) {
	f := newFixture(t, nil)
	c, err := net.Dial("tcp", f.address)
	testkit.Must(t, err)
	r, err := http.NewRequest(http.MethodPost, "http://"+f.address+centralPath, nil)
	testkit.Must(t, err)
	r.SetBasicAuth(policy.RelayUser, password)
	_, err = io.WriteString(c, "POST "+centralPath+" HTTP/1.1\r\nHost: "+f.address+"\r\nAuthorization: "+
		r.Header.Get("Authorization")+
		"\r\nContent-Length: 1000\r\n\r\nshort")
	testkit.Must(t, err)
	testkit.Eventually(t, "the room is taken", func() bool { return metric(t, f.relay, "ampbridge_relay_bytes_in_flight", "") == 1000 })
	testkit.Must(t, c.Close())
	testkit.Eventually(t, "the room is back", func() bool { return metric(t, f.relay, "ampbridge_relay_bytes_in_flight", "") == 0 })
}

// metric returns the sum of a metric's series with a label of that value, or of all.
func metric(t *testing.T, c prometheus.Collector, name, value string) float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	return metricstest.Sum(t, registry, name, value)
}
