// Package awstest is a double of AWS for tests: IAM, STS and Amazon Managed
// Service for Prometheus (AMP), and a little of S3, on loopback, with several
// accounts.
//
// It exists because no emulator evaluates web identity: the common ones accept
// any token for any role. This one verifies what AWS verifies. An
// AssumeRoleWithWebIdentity call succeeds only if the token's signature checks
// out against the keys that the issuer publishes over HTTPS, the issuer is
// registered in the role's account, the audience is one of the provider's
// client IDs, the token has not expired, and the role's trust document lets
// the subject in. Signed calls are checked byte for byte (Signature Version 4)
// against the credentials the double issued, and authorised by evaluating the
// caller's policies and permissions boundary. Samples that pass are kept in a
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
// Programs of other processes find it through [Cloud.Environ].
//
// What it leaves out: workspace resource policies, condition operators on IP addresses, presigned URLs.
//
// Where it deviates from AWS's documentation:
//
//   - A service control policy can only deny: FullAWSAccess is always beside it. It does not concern STS's calls with
//     web identities, and there are no organisations: it is set for an account.
//   - Calls of IAM and STS to a host that AWS did not name, such as URL's, may be signed for any region of the partition:
//     SDKs sign for the configured region under an endpoint override. To a name of AWS's only its region is right.
//   - A client token of CreateWorkspace is kept for good, and used again with other parameters it names the same workspace.
//   - A workspace becomes ACTIVE and goes away after [Cloud.SetWorkspaceDelay], at once unless it is set; AWS takes seconds.
//   - Quotas are the account's own for all its regions but for workspaces, which are counted in each region.
//   - IAM's documents come back with their statements in the writer's order and their elements in one order.
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
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// Options says how a Cloud is set up. The zero value serves on free ports and
// can do everything but store samples.
type Options struct {
	// Prometheus is the path of a Prometheus binary (2.33 or newer), which
	// keeps the samples. Without one a query answers 500, and a write too, unless Keep
	// names a metric.
	Prometheus string
	// Keep are names of metrics: the double keeps each of their samples as it came, see
	// [Cloud.Kept], and needs no Prometheus for that.
	Keep []string
	// Listen and ListenTLS are the addresses to serve plain HTTP and HTTPS on.
	// Empty: a free port of 127.0.0.1.
	Listen, ListenTLS string
	// Dir is where the workspaces' data goes. Empty: a temporary directory
	// that Close removes.
	Dir string
	// Logf, if set, receives one line per call. No line holds a secret.
	Logf func(format string, args ...any)
}

// Cloud is a running double. Its methods may be called from any goroutine.
type Cloud struct {
	// URL serves every service over plain HTTP: it is meant for
	// AWS_ENDPOINT_URL and its per-service variants.
	URL string
	// TLSURL serves the same over HTTPS, with a certificate of CA for whatever
	// AWS host name the client asks for (sts.eu-west-1.amazonaws.com, …) as well as
	// for localhost and 127.0.0.1.
	TLSURL string
	// CA is the certificate, in PEM, of the authority that vouches for TLSURL and
	// for issuers registered with PublicCA.
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
			// A reset connection must hit one request, not all that share it.
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

// Start is New for tests: it fails the test where New fails, and closes the
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

// StartListening opens URL and TLSURL again, on the ports they had. It does
// nothing where they are open.
func (c *Cloud) StartListening() error {
	for _, l := range c.listeners {
		if err := l.start(c); err != nil {
			return err
		}
	}
	return nil
}

// StopListening closes URL and TLSURL and every connection to them: clients
// see "connection refused".
func (c *Cloud) StopListening() {
	for _, l := range c.listeners {
		l.stop()
	}
}

// Now is the time of the double.
func (c *Cloud) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now()
}

// now is Now for callers that hold the lock.
func (c *Cloud) now() time.Time { return time.Now().Add(c.offset) }

// Advance moves the clock of the double on, so that tokens and sessions expire
// without waiting. Clients keep their own clock: a session obtained afterwards
// tells an expiry that lies further ahead for them, and a token that is fresh for
// them may have expired for the double.
func (c *Cloud) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offset += d
}

// AllowShortSessions accepts session durations from one second on, for tests of
// renewal. AWS, and the double by default, refuses less than 900 seconds.
func (c *Cloud) AllowShortSessions() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shortSessions = true
}

// SetSessionLife ends sessions after d, whatever was asked for, so that clients
// that ask for hours renew within a test. AWS never does that. Zero gives what
// was asked.
func (c *Cloud) SetSessionLife(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sessionLife = d
}

// SetPropagationDelay keeps changes in IAM from STS and AMP until they are d old,
// as AWS does for some seconds. Zero makes every change visible at once.
func (c *Cloud) SetPropagationDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.propagation = d
}

// SetReadDelay makes IAM's own reads stale: they do not show changes younger
// than d. Writes always act on the newest state.
func (c *Cloud) SetReadDelay(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readDelay = d
}

// Config is an SDK configuration that sends calls, signed with creds, to the
// double.
func (c *Cloud) Config(creds Credentials, region string) aws.Config {
	return aws.Config{Region: region, Credentials: creds, BaseEndpoint: aws.String(c.URL)}
}

// Environ is the environment ("NAME=value") that points the SDKs of another
// process at the double.
func (c *Cloud) Environ() []string {
	return []string{
		"AWS_ENDPOINT_URL=" + c.URL,
		"AWS_ENDPOINT_URL_IAM=" + c.URL,
		"AWS_ENDPOINT_URL_STS=" + c.URL,
		"AWS_ENDPOINT_URL_AMP=" + c.URL,
		"AWS_ENDPOINT_URL_S3=" + c.URL,
	}
}

// Setenv makes these credentials, and nothing of the machine's, what the SDK of the
// test's own process finds.
func (c *Cloud) Setenv(t testing.TB, credentials Credentials) {
	t.Helper()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nothing := []string{
		"AWS_CONFIG_FILE=" + empty, "AWS_SHARED_CREDENTIALS_FILE=" + empty, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_REGION=", "AWS_DEFAULT_REGION=", "AWS_PROFILE=", "AWS_SESSION_TOKEN=", "AWS_CA_BUNDLE=",
		"AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_ROLE_ARN=",
	}
	for _, v := range slices.Concat(nothing, c.Environ(), credentials.Environ()) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
}

// Account is the account of that id (12 digits) in the commercial partition,
// created on first use.
func (c *Cloud) Account(id string) *Account { return c.AccountIn("aws", id) }

// AccountIn is Account for another partition, such as aws-cn or aws-us-gov. The
// partition of an account that exists does not change.
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

// listener serves a Cloud on one address, again and again.
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

// newServer is a server that keeps quiet about failed handshakes and aborted
// connections: faults make plenty of both.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          log.New(io.Discard, "", 0),
	}
}
