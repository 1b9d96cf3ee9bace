package relay

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// service is AMP's name in signatures.
const service = "aps"

// maxAnswer is the part of AMP's answer that is passed on, in bytes. Prometheus logs its
// first line.
const maxAnswer = 16 << 10

// answer is an answer of AMP.
type answer struct {
	status int
	header http.Header
	body   []byte
	// failure is AMP's name for the error; empty if there was none.
	failure string
}

// expired reports whether AMP refuses the session because it has expired. Other
// refusals are permanent: an AccessDenied stays the same after another attempt.
func (a answer) expired() bool {
	return a.status == http.StatusForbidden &&
		(strings.HasPrefix(a.failure, "ExpiredToken") || strings.Contains(string(a.body), "security token included in the request is expired"))
}

// forward signs the request and sends it to AMP.
func (r *Relay) forward(request *http.Request, d *destination, s session.Session, b *body) (answer, error) {
	ctx, cancel := context.WithTimeout(request.Context(), r.options.Bounds.Forward)
	defer cancel()
	target := *d.target // a copy, because the signer writes to it
	// Build a new request, so that nothing of the old one is passed on by accident.
	out := (&http.Request{
		Method: http.MethodPost, URL: &target, Host: d.target.Host, Header: http.Header{},
		ContentLength: int64(len(b.content)),
		Body:          b.open(),
		GetBody:       func() (io.ReadCloser, error) { return b.open(), nil },
	}).WithContext(ctx)
	copyHeaders(out.Header, request.Header, requestHeaders)
	if out.Header["User-Agent"] == nil {
		out.Header.Set("User-Agent", "ampbridge-relay")
	}
	sum := sha256.Sum256(b.content)
	credentials := aws.Credentials{AccessKeyID: s.AccessKeyID, SecretAccessKey: s.SecretAccessKey, SessionToken: s.SessionToken}
	err := signer.SignHTTP(ctx, credentials, out, hex.EncodeToString(sum[:]), service, d.Region, r.options.Now())
	if err != nil {
		_ = out.Body.Close() // releases the place; there is no other error
		return answer{}, err
	}
	response, err := d.Transport.RoundTrip(out)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }() // the needed part was read
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return answer{}, err
	}
	a := answer{status: response.StatusCode, header: response.Header, body: text}
	if a.status/100 != 2 {
		name, _, _ := strings.Cut(response.Header.Get("X-Amzn-Errortype"), ":")
		a.failure = name
		if name == "" {
			a.failure = http.StatusText(a.status)
		}
	}
	return a, nil
}

// signer does not escape the path, because AMP's paths need no escaping.
var signer = v4.NewSigner()

// NewTransport returns a transport to AMP. If proxy or roots is nil, it uses the
// environment's proxy or the system's CAs.
func NewTransport(proxy func(*http.Request) (*url.URL, error), roots *x509.CertPool) *http.Transport {
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	return &http.Transport{
		Proxy:       proxy,
		DialContext: (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: roots,
			// AMP supports both versions, and HTTP/2 was not faster (docs/design/performance.md).
			NextProtos: []string{"http/1.1"},
		},
		TLSHandshakeTimeout: 10 * time.Second,
		// One connection per shard of a Prometheus.
		MaxIdleConnsPerHost: 200,
		MaxIdleConns:        400,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}
}

// lastAnswer is AMP's latest answer that was not a success, and when AMP last accepted a write.
type lastAnswer struct {
	mu      sync.Mutex
	taken   time.Time
	at      time.Time
	status  int
	failure string
}

func (l *lastAnswer) set(at time.Time, status int, failure string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if failure == "" {
		l.taken = at
		return
	}
	l.at, l.status, l.failure = at, status, failure
}

// Failure is AMP's latest answer that was not a success.
type Failure struct {
	// At is when the write arrived; zero if there was no failure.
	At time.Time
	// Status is AMP's HTTP status; 0 if it could not be reached.
	Status int
	// Name is AMP's name for the error, or the name of the status.
	Name string
}

// LastTaken returns when AMP last accepted a write to a destination; zero if it accepted none.
func (r *Relay) LastTaken(destination string) time.Time {
	for _, d := range r.destinations {
		if d.Name == destination {
			d.last.mu.Lock()
			defer d.last.mu.Unlock()
			return d.last.taken
		}
	}
	return time.Time{}
}

// LastFailure returns the latest failure of a destination.
func (r *Relay) LastFailure(destination string) Failure {
	for _, d := range r.destinations {
		if d.Name == destination {
			d.last.mu.Lock()
			defer d.last.mu.Unlock()
			return Failure{d.last.at, d.last.status, d.last.failure}
		}
	}
	return Failure{}
}
