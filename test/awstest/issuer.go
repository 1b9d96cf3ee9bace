package awstest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Issuer is an issuer that STS can reach under its realistic URL.
type Issuer struct {
	// URL is the issuer, byte for byte as in its tokens.
	URL string

	cloud   *Cloud
	host    *issuerHost
	path    string // of URL, without trailing slash
	handler http.Handler

	mu      sync.Mutex
	fetches int
}

// RegisterIssuer makes the issuer (https://host/path, no port; a trailing slash is significant)
// reachable for STS and IAM: its host gets a local HTTPS server with a certificate for that
// name. Names are never resolved, so a host that is not registered cannot be reached.
//
// The handler gets the requests below the issuer's path, without that path. It must serve
// /.well-known/openid-configuration and the keys, as [Signer] and [Upstream] do. Several issuers may share a host
// and then share its CA.
func (c *Cloud) RegisterIssuer(issuer string, handler http.Handler, ca CA) (*Issuer, error) {
	if err := checkIssuer(issuer); err != nil {
		return nil, fmt.Errorf("issuer %q: %w (https, no port, no query)", issuer, err)
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return nil, err
	}
	host, err := c.fetcher.host(u.Host, c.authority(ca))
	if err != nil {
		return nil, err
	}
	i := &Issuer{URL: issuer, cloud: c, host: host, path: strings.TrimSuffix(u.Path, "/"), handler: handler}
	host.add(i)
	return i, nil
}

func (c *Cloud) authority(ca CA) *authority {
	if ca == PrivateCA {
		return c.private
	}
	return c.public
}

// Thumbprint returns the value for a provider's thumbprint list: the SHA-1 of the certificate at the end of
// the issuer's chain.
func (i *Issuer) Thumbprint() string { return thumbprint(i.host.authority.certificate) }

// CA returns the PEM certificate at the end of the issuer's chain.
func (i *Issuer) CA() []byte { return i.host.authority.pem() }

// Fetches returns the number of requests to the issuer.
func (i *Issuer) Fetches() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fetches
}

// Fail makes requests to the issuer fail until the injection is stopped.
func (i *Issuer) Fail(fault Fault) *Injection {
	return i.cloud.faults.add(&Injection{target: i.target(), fault: fault})
}

func (i *Issuer) target() string { return "issuer:" + i.URL }

func (i *Issuer) serve(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	i.fetches++
	i.mu.Unlock()
	cut, err := i.cloud.strike(r.Context(), i.cloud.faults.find(i.target(), ""))
	if err != nil || cut {
		if status := asAPIError(err).Status; err != nil && status != 0 {
			http.Error(w, err.Error(), status)
			return
		}
		reset(w)
		return
	}
	http.StripPrefix(i.path, i.handler).ServeHTTP(w, r)
}

// Upstream returns a handler for [Cloud.RegisterIssuer] that passes requests to the server at
// base, such as a kube-apiserver, through the transport (nil means the default one) and with the
// bearer token, if there is one. A kube-apiserver serves the discovery document and the keys
// at /.well-known/openid-configuration and /openid/v1/jwks. The jwks_uri in its document is the value of
// its flag --service-account-jwks-uri, which must be below the issuer here, without a double slash.
func Upstream(base *url.URL, transport http.RoundTripper, bearer string) http.Handler {
	return &httputil.ReverseProxy{
		Transport: transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(base)
			if bearer != "" {
				r.Out.Header.Set("Authorization", "Bearer "+bearer)
			}
		},
	}
}

// issuerHost is the HTTPS server of one host name.
type issuerHost struct {
	name      string
	authority *authority
	listener  net.Listener
	server    *http.Server

	mu      sync.Mutex
	issuers []*Issuer // longest path first
}

func (h *issuerHost) add(i *Issuer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	// The same issuer again replaces the old one, as for a cluster that was created again.
	h.issuers = slices.DeleteFunc(h.issuers, func(o *Issuer) bool { return o.path == i.path })
	h.issuers = append(h.issuers, i)
	slices.SortFunc(h.issuers, func(a, b *Issuer) int { return len(b.path) - len(a.path) })
}

// ServeHTTP implements [http.Handler].
func (h *issuerHost) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	n := slices.IndexFunc(h.issuers, func(i *Issuer) bool { return strings.HasPrefix(r.URL.Path, i.path+"/") })
	var issuer *Issuer
	if n >= 0 {
		issuer = h.issuers[n]
	}
	h.mu.Unlock()
	if issuer == nil {
		http.NotFound(w, r)
		return
	}
	issuer.serve(w, r)
}

// fetcher is the part of STS and IAM that reads issuers.
type fetcher struct {
	public *x509.CertPool

	mu    sync.Mutex
	hosts map[string]*issuerHost
	cache map[string]cachedKeys
}

type cachedKeys struct {
	keys  jose.JSONWebKeySet
	until time.Time // on the double's clock
}

const (
	// fetchTimeout is how long STS waits for an issuer.
	fetchTimeout = 5 * time.Second
	// keysLifetime is how long STS uses keys without reading them again. AWS does not
	// publish its value.
	keysLifetime = 10 * time.Second
	// maxDocument is the limit of a discovery document or key set, in bytes.
	maxDocument = 1 << 20
)

func newFetcher(public *x509.CertPool) *fetcher {
	return &fetcher{public: public, hosts: map[string]*issuerHost{}, cache: map[string]cachedKeys{}}
}

func (f *fetcher) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, h := range f.hosts {
		_ = h.server.Close()
	}
}

// host returns the server with that name, and starts it on first use.
func (f *fetcher) host(name string, a *authority) (*issuerHost, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if h, ok := f.hosts[name]; ok {
		if h.authority != a {
			return nil, fmt.Errorf("host %s already has a certificate of the other CA", name)
		}
		return h, nil
	}
	leaf, err := a.leaf(name)
	if err != nil {
		return nil, err
	}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	h := &issuerHost{name: name, authority: a}
	h.listener = tls.NewListener(socket, &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*leaf}})
	h.server = newServer(h)
	go func() { _ = h.server.Serve(h.listener) }()
	f.hosts[name] = h
	return h, nil
}

// dial connects to the server for host:port.
func (f *fetcher) dial(ctx context.Context, network, address string) (net.Conn, error) {
	name, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	h := f.hosts[name]
	f.mu.Unlock()
	if h == nil || port != "443" {
		return nil, fmt.Errorf("dial %s: no such host on the public internet", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, h.listener.Addr().String())
}

// errThumbprint means that neither a public CA nor a thumbprint confirms a certificate.
var errThumbprint = errors.New("certificate does not match a configured thumbprint")

// verify checks a server's certificate as AWS does. Public CAs need no thumbprint. Any other
// chain is valid if the provider lists the thumbprint of its last certificate.
func (f *fetcher) verify(state tls.ConnectionState, thumbprints []string) error {
	chain := state.PeerCertificates
	options := x509.VerifyOptions{DNSName: state.ServerName, Roots: f.public, Intermediates: x509.NewCertPool()}
	for _, c := range chain[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := chain[0].Verify(options); err == nil {
		return nil
	}
	top := chain[len(chain)-1]
	options.Roots = x509.NewCertPool()
	options.Roots.AddCert(top)
	if _, err := chain[0].Verify(options); err != nil {
		return err
	}
	if !slices.ContainsFunc(thumbprints, func(t string) bool { return strings.EqualFold(t, thumbprint(top)) }) {
		return errThumbprint
	}
	return nil
}

// client returns a client for issuers with a certificate that verify accepts.
func (f *fetcher) client(verify func(tls.ConnectionState) error) *http.Client {
	return &http.Client{
		Timeout: fetchTimeout,
		Transport: &http.Transport{
			DialContext:       f.dial,
			DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{
				MinVersion:         tls.VersionTLS12,
				InsecureSkipVerify: true, // VerifyConnection verifies
				VerifyConnection:   verify,
			},
		},
	}
}

// topThumbprint is the thumbprint of the last certificate that the issuer presents.
func (f *fetcher) topThumbprint(ctx context.Context, issuer string) (string, error) {
	var top string
	client := f.client(func(state tls.ConnectionState) error {
		top = thumbprint(state.PeerCertificates[len(state.PeerCertificates)-1])
		return nil
	})
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, issuer, nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	return top, response.Body.Close()
}

// keys returns the issuer's public keys. It uses the cache until that expires, unless
// fresh is true.
func (f *fetcher) keys(ctx context.Context, p *provider, now time.Time, fresh bool) (jose.JSONWebKeySet, error) {
	id := p.arn + " " + strings.Join(p.thumbprints, " ")
	f.mu.Lock()
	cached := f.cache[id]
	f.mu.Unlock()
	if !fresh && now.Before(cached.until) {
		return cached.keys, nil
	}
	keys, err := f.fetchKeys(ctx, p)
	if err != nil {
		return keys, err
	}
	f.mu.Lock()
	f.cache[id] = cachedKeys{keys, now.Add(keysLifetime)}
	f.mu.Unlock()
	return keys, nil
}

func (f *fetcher) fetchKeys(ctx context.Context, p *provider) (keys jose.JSONWebKeySet, err error) {
	client := f.client(func(state tls.ConnectionState) error { return f.verify(state, p.thumbprints) })
	var discovery struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	where := strings.TrimSuffix(p.issuer(), "/") + "/.well-known/openid-configuration"
	if err := fetchJSON(ctx, client, where, &discovery); err != nil {
		return keys, err
	}
	if discovery.Issuer != p.issuer() {
		return keys, fmt.Errorf("the discovery document of %s is that of %s", p.issuer(), discovery.Issuer)
	}
	if !strings.HasPrefix(discovery.JWKSURI, "https://") {
		return keys, fmt.Errorf("jwks_uri %q is not https", discovery.JWKSURI)
	}
	return keys, fetchJSON(ctx, client, discovery.JWKSURI, &keys)
}

func fetchJSON(ctx context.Context, client *http.Client, from string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }() // read only
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", from, response.Status)
	}
	return json.NewDecoder(io.LimitReader(response.Body, maxDocument)).Decode(into)
}
