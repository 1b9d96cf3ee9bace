// Package relay signs what a Prometheus writes and forwards it to AMP. Prometheus
// writes to a loopback port with a password and needs no AWS credentials, so that
// neither an outage of STS nor the end of a session can stop it.
//
// Prometheus keeps a sample in its WAL as long as the answer is 5xx, and drops
// it after a 4xx. So for every temporary problem the relay answers 503 and never a 4xx:
// a wrong password, no session, too many writes, an AMP that cannot be reached, an
// expired session, and AMP's 429 if the destination wants that. It passes on AMP's other
// answers unchanged. It passes on remote write 1.0 and 2.0 without parsing them.
//
// The limits on connections, requests and bytes apply before memory is used. A request
// above the limits waits for a moment, because a refusal that does not
// read the body closes Prometheus's connection.
package relay

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// RetryAfter is the longest pause that the relay asks for. Prometheus waits that long
// without another attempt, so a longer pause would delay the recovery.
const RetryAfter = 5 * time.Second

// Destination is an AMP workspace to which the relay forwards.
type Destination struct {
	Name string
	// Path is the path that Prometheus writes to: [policy.Block.RelayPath].
	Path string
	// URL is the workspace's remote_write URL.
	URL string
	// Region is the region in signatures.
	Region string
	// RetryOn429 turns AMP's 429 into a 503, so that Prometheus sends the samples again.
	RetryOn429 bool
	// Transport sends requests to AMP; nil means [Options.Transport].
	Transport http.RoundTripper
}

// Bounds are the limits of a relay. Zero values mean the defaults of [New].
type Bounds struct {
	// Body is the longest request body, in bytes as sent; 0 means 8 MiB. AMP accepts 1 MB.
	Body int64
	// Bytes is the limit for all open bodies together; 0 means 24 MiB.
	Bytes int64
	// Requests is the limit for open requests; 0 means 256. Prometheus has at most one per
	// shard.
	Requests int
	// Wait is how long a request above the limits waits; 0 means 1 s.
	Wait time.Duration
	// Forward is how long AMP may take to answer; 0 means 1 minute. Prometheus gives up
	// earlier, after its remote_timeout.
	Forward time.Duration
}

// Options configures a relay.
type Options struct {
	Destinations []Destination
	// Password returns the pod's password. While it is empty, the relay refuses all requests.
	Password func() string
	// Session returns the session of a destination, valid or not.
	Session func(destination string) session.Session
	// Expired is called when AMP reports that the session of a destination has
	// expired; nil is not called.
	Expired func(destination string)
	// Transport sends requests to AMP, with the policy's proxy and CAs;
	// nil means a transport with the settings of [http.DefaultTransport]. It must not follow
	// redirects, which a RoundTripper does not do.
	Transport http.RoundTripper
	Logger    *slog.Logger
	Bounds    Bounds
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Relay is the HTTP handler. [New] returns one.
type Relay struct {
	options      Options
	destinations map[string]*destination // by path
	room         *room
	metrics      *metrics
}

type destination struct {
	Destination
	target *url.URL
	last   lastAnswer
}

// New returns a relay. It fails if a destination's URL cannot be parsed.
func New(o Options) (*Relay, error) {
	setDefault(&o.Bounds.Body, 8<<20)
	setDefault(&o.Bounds.Bytes, 24<<20)
	setDefault(&o.Bounds.Requests, 256)
	setDefault(&o.Bounds.Wait, time.Second)
	setDefault(&o.Bounds.Forward, time.Minute)
	o.Bounds.Body = min(o.Bounds.Body, o.Bounds.Bytes)
	if o.Transport == nil {
		o.Transport = NewTransport(nil, nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	r := &Relay{
		options: o, destinations: map[string]*destination{},
		room: newRoom(o.Bounds.Requests, o.Bounds.Bytes), metrics: newMetrics(),
	}
	for _, d := range o.Destinations {
		target, err := url.Parse(d.URL)
		if err != nil {
			return nil, err
		}
		if d.Transport == nil {
			d.Transport = o.Transport
		}
		r.destinations[d.Path] = &destination{Destination: d, target: target}
		r.metrics.announce(d.Name)
	}
	return r, nil
}

func setDefault[T comparable](value *T, to T) {
	var zero T
	if *value == zero {
		*value = to
	}
}

// ServeHTTP handles one remote write request.
func (r *Relay) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	if !r.authentic(request) {
		r.refuse(w, "", wrongPassword, nil)
		return
	}
	d := r.destinations[request.URL.EscapedPath()]
	switch {
	case !ownHost(request):
		reject(w, http.StatusMisdirectedRequest, "write to the relay's own address")
	case d == nil:
		reject(w, http.StatusNotFound, "no destination of this pod has this path")
	case request.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		reject(w, http.StatusMethodNotAllowed, "only POST is accepted")
	case request.ContentLength > r.options.Bounds.Body:
		reject(w, http.StatusRequestEntityTooLarge, "the body is longer than AMP accepts; reduce max_samples_per_send")
	default:
		r.relay(w, request, d)
	}
}

// authentic reports whether the request has the pod's password. The comparison takes
// the same time for every password.
func (r *Relay) authentic(request *http.Request) bool {
	user, password, _ := request.BasicAuth()
	want := r.options.Password()
	given, wanted := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(want))
	same := subtle.ConstantTimeCompare(given[:], wanted[:]) == 1
	return want != "" && user == policy.RelayUser && same
}

// ownHost reports whether the request's Host is the address that it was sent to. A web page
// that reaches the relay by a DNS name of its own has another Host.
func ownHost(request *http.Request) bool {
	local, ok := request.Context().Value(http.LocalAddrContextKey).(net.Addr)
	return ok && request.Host == local.String()
}

func (r *Relay) relay(w http.ResponseWriter, request *http.Request, d *destination) {
	begin := r.options.Now()
	current := r.options.Session(d.Name)
	if !current.Valid(begin) {
		r.refuse(w, d.Name, noSession, nil)
		return
	}
	// For a body of unknown length, assume the longest one.
	size := request.ContentLength
	if size < 0 {
		size = r.options.Bounds.Body
	}
	place, ok := r.room.take(request.Context(), size, r.options.Bounds.Wait)
	if !ok {
		r.refuse(w, d.Name, noRoom, nil)
		return
	}
	defer place.release()
	content, err := readBody(w, request, size)
	if err != nil {
		r.refuse(w, d.Name, unreadable, err)
		return
	}
	answer, err := r.forward(request, d, current, &body{content: content, place: place})
	if err != nil {
		r.refuse(w, d.Name, unreachable, err)
		d.last.set(begin, 0, "AMP cannot be reached")
		return
	}
	r.metrics.observe(d.Name, answer.status, len(content), r.options.Now().Sub(begin))
	d.last.set(begin, answer.status, answer.failure)
	r.pass(w, d, answer)
}

// errShort means that the body ended before its length.
var errShort = errors.New("the body is not as long as Content-Length says")

// readBody reads a body of at most size bytes.
func readBody(w http.ResponseWriter, request *http.Request, size int64) ([]byte, error) {
	limited := http.MaxBytesReader(w, request.Body, size)
	if request.ContentLength < 0 {
		return io.ReadAll(limited)
	}
	content := make([]byte, size)
	if _, err := io.ReadFull(limited, content); err != nil {
		return nil, errors.Join(errShort, err)
	}
	return content, nil
}

// pass writes AMP's answer, or a 503 instead of it.
func (r *Relay) pass(w http.ResponseWriter, d *destination, a answer) {
	switch {
	case a.expired():
		if r.options.Expired != nil {
			r.options.Expired(d.Name)
		}
		r.refuse(w, d.Name, sessionExpired, nil)
	case a.status == http.StatusTooManyRequests && d.RetryOn429:
		r.refuse(w, d.Name, throttled, nil)
	case a.status/100 == 3:
		// A redirect would send the signed samples to another host.
		r.refuse(w, d.Name, redirected, nil)
	default:
		copyHeaders(w.Header(), a.header, answerHeaders)
		limitRetryAfter(w.Header())
		w.WriteHeader(a.status)
		_, _ = w.Write(a.body) // an error means that Prometheus disconnected
	}
}

// refuse answers 503, after which Prometheus keeps its samples.
func (r *Relay) refuse(w http.ResponseWriter, destination string, reason refusal, err error) {
	r.metrics.refused.WithLabelValues(destination, string(reason)).Inc()
	if err != nil {
		r.options.Logger.Debug("refused a write", "destination", destination, "reason", string(reason), "error", err)
	}
	w.Header().Set("Retry-After", reason.retryAfter())
	reject(w, http.StatusServiceUnavailable, reason.text())
}

// reject answers without reading the body.
func reject(w http.ResponseWriter, status int, text string) {
	http.Error(w, "ampbridge: "+text, status)
}

// refusal is the reason for a 503.
type refusal string

const (
	wrongPassword  refusal = "wrong_password"
	noSession      refusal = "no_session"
	noRoom         refusal = "no_room"
	unreadable     refusal = "unreadable"
	unreachable    refusal = "unreachable"
	sessionExpired refusal = "session_expired"
	throttled      refusal = "throttled"
	redirected     refusal = "redirected"
)

// refusals are all the reasons.
var refusals = []refusal{wrongPassword, noSession, noRoom, unreadable, unreachable, sessionExpired, throttled, redirected}

// retryAfter returns a number of seconds. It is shorter if only too many writes are open.
func (r refusal) retryAfter() string {
	if r == noRoom {
		return "1"
	}
	return "5"
}

func (r refusal) text() string {
	return map[refusal]string{
		wrongPassword:  "the password is not this pod's",
		noSession:      "there is no session to sign with; send the samples again later",
		noRoom:         "too many writes are in flight",
		unreadable:     "the request could not be read",
		unreachable:    "AMP cannot be reached",
		sessionExpired: "AMP reports that the session has expired; the next one is being requested",
		throttled:      "AMP throttles this workspace",
		redirected:     "AMP's address answers with a redirect, which the relay does not follow",
	}[r]
}

// requestHeaders are passed to AMP.
var requestHeaders = []string{
	"Content-Type", "Content-Encoding", "User-Agent", "Retry-Attempt", "X-Prometheus-Remote-Write-Version",
}

// answerHeaders are passed to Prometheus.
var answerHeaders = []string{
	"Content-Type", "Retry-After", "X-Amzn-Requestid", "X-Amzn-Errortype",
	"X-Prometheus-Remote-Write-Samples-Written", "X-Prometheus-Remote-Write-Histograms-Written",
	"X-Prometheus-Remote-Write-Exemplars-Written",
}

func copyHeaders(to, from http.Header, names []string) {
	for _, name := range names {
		if values := from[http.CanonicalHeaderKey(name)]; len(values) > 0 {
			to[http.CanonicalHeaderKey(name)] = values[:1]
		}
	}
}

// limitRetryAfter limits AMP's own pause: a date, or more than [RetryAfter], becomes
// [RetryAfter].
func limitRetryAfter(h http.Header) {
	value := h.Get("Retry-After")
	if value == "" {
		return
	}
	if seconds := strings.TrimLeft(value, "0"); len(seconds) > 1 || seconds > "5" || !digits(value) {
		h.Set("Retry-After", "5")
	}
}

func digits(s string) bool {
	return strings.Trim(s, "0123456789") == ""
}
