// Package awstest is a double of AWS for tests: IAM, STS and Amazon Managed
// Service for Prometheus (AMP), and a small part of S3, on loopback, with several
// accounts.
//
// It exists because no emulator evaluates web identity: the common ones accept
// any token for any role. This one verifies what AWS verifies. An
// AssumeRoleWithWebIdentity call succeeds only if all of this is true: the token's signature is
// valid for the keys that the issuer publishes over HTTPS, the issuer is
// registered in the role's account, the audience is one of the provider's
// client IDs, the token has not expired, and the role's trust document allows
// the subject. The double checks signed calls byte for byte (Signature Version 4)
// against the credentials that it issued, and authorises them by evaluating the
// caller's policies and permissions boundary. Accepted samples are stored in a
// real Prometheus per workspace, and can be queried.
//
// A test begins like this:
//
//	cloud := awstest.Start(t, awstest.Options{Prometheus: path})
//	account := cloud.Account("111122223333")
//	workspace := account.CreateWorkspace("eu-west-1", "central")
//	signer := awstest.NewSigner("https://oidc.eks.eu-west-1.amazonaws.com/id/ABC", jose.RS256)
//	cloud.RegisterIssuer(signer.Issuer, signer, awstest.PublicCA)
//	client := iam.NewFromConfig(cloud.Config(account.AdminCredentials(), "eu-west-1"))
//
// Other processes find it through [Cloud.Environ].
//
// It does not implement workspace resource policies, condition operators on IP addresses, and presigned URLs.
//
// It differs from AWS's documentation in these points:
//
//   - A service control policy can only deny: FullAWSAccess always applies too. It does not apply to STS's calls with
//     web identities, and there are no organisations: it is set for an account.
//   - Calls of IAM and STS to a host that AWS did not name, such as URL's, may be signed for any region of the
//     partition: with an endpoint override, SDKs sign for the configured region. For AWS's own names only their
//     region is accepted.
//   - A client token of CreateWorkspace is kept forever. With other parameters it still returns the same workspace.
//   - A workspace becomes ACTIVE, and disappears, after [Cloud.SetWorkspaceDelay], or at once if that is not set. AWS
//     takes seconds.
//   - Quotas apply to an account in all its regions together, except for workspaces, which are counted per region.
//   - IAM's documents come back with their statements in the writer's order and their elements in a fixed order.
package awstest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"
)

// Options configures a Cloud. The zero value serves on free ports and
// can do everything except store samples.
type Options struct {
	// Prometheus is the path of a Prometheus binary (2.33 or newer), which
	// stores the samples. Without one, queries are answered with 500, and writes too unless Keep
	// names a metric.
	Prometheus string
	// Keep names metrics. The double keeps each of their samples as it arrived, see
	// [Cloud.Kept], and needs no Prometheus for that.
	Keep []string
	// Listen and ListenTLS are the addresses for plain HTTP and HTTPS.
	// If empty, a free port of 127.0.0.1.
	Listen, ListenTLS string
	// Dir is the directory for the workspaces' data. If empty, a temporary directory
	// that Close removes.
	Dir string
	// Logf, if set, gets one line per call. No line contains a secret.
	Logf func(format string, args ...any)
}

// Cloud is a running double. Its methods can be called from any goroutine.
type Cloud struct {
	// URL serves every service over plain HTTP. Use it for
	// AWS_ENDPOINT_URL and its per-service variants.
	URL string
	// TLSURL serves the same over HTTPS, with a certificate of CA for any
	// AWS host name that the client asks for (sts.eu-west-1.amazonaws.com, …), and for
	// localhost and 127.0.0.1.
	TLSURL string
	// CA is the PEM certificate of the authority that signed the certificates of TLSURL and
	// of issuers registered with PublicCA.
	CA []byte

	options    Options
	public     *authority
	private    *authority
	fetcher    *fetcher
	removeDir  bool
	closing    chan struct{}
	closeOnce  sync.Once
	listeners  [2]*listener
	faults     faults
	records    records
	kept       keeper
	prometheus backends

	mu          sync.Mutex
	offset      time.Duration
	propagation time.Duration
	// workspaceDelay is how long a workspace is CREATING or DELETING.
	workspaceDelay time.Duration
	readDelay      time.Duration
	shortSessions  bool
	sessionLife    time.Duration
	accounts       map[string]*Account
	credentials    map[string]*credential
	workspaces     map[string]*Workspace
	buckets        map[string]*Bucket
}

// New starts a Cloud. It stops when ctx ends or Close is called.
func New(ctx context.Context, options Options) (*Cloud, error) {
	public, err := newAuthority("Example Trust Services Root R1")
	if err != nil {
		return nil, err
	}
	private, err := newAuthority("Example Corp Internal CA")
	if err != nil {
		return nil, err
	}
	c := &Cloud{
		CA:          public.pem(),
		options:     options,
		public:      public,
		private:     private,
		closing:     make(chan struct{}),
		accounts:    map[string]*Account{},
		credentials: map[string]*credential{},
		workspaces:  map[string]*Workspace{},
		buckets:     map[string]*Bucket{},
	}
	c.fetcher = newFetcher(public.pool())
	if c.options.Dir == "" {
		c.removeDir = true
		if c.options.Dir, err = os.MkdirTemp("", "awstest-"); err != nil {
			return nil, err
		}
	}
	c.listeners = [2]*listener{
		{address: options.Listen},
		{address: options.ListenTLS, tls: &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: public.certificateFor,
			// With HTTP/2, a reset connection would affect all requests that share it.
			NextProtos: []string{"http/1.1"},
		}},
	}
	if err := c.StartListening(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	c.URL = "http://" + c.listeners[0].address
	c.TLSURL = "https://" + c.listeners[1].address
	context.AfterFunc(ctx, func() { _ = c.Close() })
	return c, nil
}

// Start is New for tests: it fails the test if New fails, and closes the
// Cloud when the test ends.
func Start(tb testing.TB, options Options) *Cloud {
	tb.Helper()
	c, err := New(context.Background(), options)
	if err != nil {
		tb.Fatalf("start the AWS double: %v", err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Errorf("close the AWS double: %v", err)
		}
	})
	return c
}

// Close stops everything the Cloud started and removes what it wrote.
func (c *Cloud) Close() error {
	var err error
	c.closeOnce.Do(func() {
		close(c.closing)
		c.StopListening()
		c.fetcher.close()
		err = c.prometheus.close()
		if c.removeDir {
			err = errors.Join(err, os.RemoveAll(c.options.Dir))
		}
	})
	return err
}

// StartListening opens URL and TLSURL again, on the same ports. It does
// nothing if they are open.
func (c *Cloud) StartListening() error {
	for _, l := range c.listeners {
		if err := l.start(c); err != nil {
			return err
		}
	}
	return nil
}

// StopListening closes URL and TLSURL and all connections to them: clients
// get "connection refused".
func (c *Cloud) StopListening() {
	for _, l := range c.listeners {
		l.stop()
	}
}

// Now returns the double's time.
func (c *Cloud) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

// now returns the double's time. The caller holds the lock.
func (c *Cloud) now() time.Time { return time.Now().Add(c.offset) }

// Advance moves the double's clock forward, so that tokens and sessions expire
// without waiting. Clients keep their own clock. So for a client, a session that it gets later
// expires later than it should, and a token that is fresh for the client
// may have expired for the double.
func (c *Cloud) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// AllowShortSessions accepts session durations of one second and more, for tests of
// renewal. AWS, and the double by default, refuses less than 900 seconds.
func (c *Cloud) AllowShortSessions() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shortSessions = true
}

// SetSessionLife limits sessions to d, whatever the client asks for, so that clients
// that ask for hours renew within a test. AWS never does that. Zero removes the
// limit.
func (c *Cloud) SetSessionLife(d time.Duration) { c.set(&c.sessionLife, d) }

// SetPropagationDelay hides changes in IAM from STS and AMP until they are d old.
// AWS has a delay of some seconds. With zero, every change is visible at once.
func (c *Cloud) SetPropagationDelay(d time.Duration) { c.set(&c.propagation, d) }

// SetReadDelay makes IAM's own reads stale: they do not show changes younger
// than d. Writes always use the newest state.
func (c *Cloud) SetReadDelay(d time.Duration) { c.set(&c.readDelay, d) }

func (c *Cloud) set(field *time.Duration, d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*field = d
}

// Account returns the account with that id (12 digits) in the commercial partition.
// The first call creates it.
func (c *Cloud) Account(id string) *Account { return c.AccountIn("aws", id) }

// AccountIn is Account for another partition, such as aws-cn or aws-us-gov. The
// partition of an existing account does not change.
func (c *Cloud) AccountIn(partition, id string) *Account {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.accounts[id]; ok {
		return a
	}
	a := newAccount(c, partition, id)
	c.accounts[id] = a
	return a
}

// listener serves a Cloud on one address. It can be closed and opened again.
type listener struct {
	tls *tls.Config

	mu      sync.Mutex
	address string
	server  *http.Server
}

func (l *listener) start(handler http.Handler) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server != nil {
		return nil
	}
	if l.address == "" {
		l.address = "127.0.0.1:0"
	}
	socket, err := net.Listen("tcp", l.address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l.address = socket.Addr().String()
	if l.tls != nil {
		socket = tls.NewListener(socket, l.tls)
	}
	l.server = newServer(handler)
	go func(s *http.Server) { _ = s.Serve(socket) }(l.server)
	return nil
}

func (l *listener) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.server != nil {
		_ = l.server.Close()
		l.server = nil
	}
}

// newServer returns a server that does not log failed handshakes and aborted
// connections, because faults cause many of both.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}
