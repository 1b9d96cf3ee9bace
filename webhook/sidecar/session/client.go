package session

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// Limits of STS, in seconds.
const (
	// anyRole is what every role allows, and all that a chained role gets.
	anyRole  = 3600
	shortest = 900
	longest  = 43200
)

// attempt bounds one call to STS, from name look-up to the last byte.
const attempt = 5 * time.Second

// Options says how to reach STS and who is asking.
type Options struct {
	// Token is the file of the pod's service-account token; the kubelet
	// replaces it, so it is read for every call.
	Token string
	// Name is the role session name, see [Name].
	Name string
	// Seconds is the duration to ask for.
	Seconds int
	// Region is where STS is called. Role is assumed with the token, and AssumeRole, if
	// it is set, with the session of Role; the call for it carries ExternalID, if that
	// is set.
	Region, Role, AssumeRole, ExternalID string
	// Endpoint replaces https://sts.<region>.<suffix>, and signatures are for its region; ProxyURL the proxy that
	// the environment names. CABundle is PEM, added to the system's roots.
	Endpoint, ProxyURL, CABundle string
}

// OptionsFor returns the options for one destination of a pod.
func OptionsFor(c sidecarconfig.Config, d sidecarconfig.Destination, namespace, pod string) Options {
	sts := c.STS
	if d.STS != nil {
		sts = *d.STS
	}
	return Options{
		Token: c.Token, Name: Name(c.Cluster, namespace, pod), Seconds: c.SessionSeconds,
		Region: d.Region, Role: d.Role, AssumeRole: d.AssumeRole, ExternalID: d.ExternalID,
		Endpoint: sts.Endpoint, ProxyURL: sts.ProxyURL, CABundle: sts.CABundle,
	}
}

// Client gets the sessions of one destination. Its methods may be called from any
// goroutine.
type Client struct {
	options Options
	http    *http.Client
	seconds int32 // to ask for

	// capped: the role turned out to allow one hour only.
	capped atomic.Bool
}

// NewClient makes a Client. It fails on a proxy or a CA bundle that cannot be
// understood.
func NewClient(o Options) (*Client, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// Sessions are hours apart: a kept connection would only be one that
		// some firewall forgot.
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if o.ProxyURL != "" {
		proxy, err := url.Parse(o.ProxyURL)
		if err != nil || proxy.Host == "" {
			return nil, errors.New("sts.proxyURL is not a URL: write http://host:port")
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	roots, err := Roots(o.CABundle)
	if err != nil {
		return nil, fmt.Errorf("sts.caBundle %w", err)
	}
	transport.TLSClientConfig.RootCAs = roots
	return &Client{
		options: o,
		seconds: int32(min(max(o.Seconds, 1), longest)),
		http:    &http.Client{Transport: transport},
	}, nil
}

// Obtain makes one attempt at a session: Role is assumed with the token, and
// AssumeRole, if there is one, with the session of Role. Errors have short,
// stable text: the same error reads the same every time.
func (c *Client) Obtain(ctx context.Context) (Session, error) {
	token, err := os.ReadFile(c.options.Token)
	if err != nil {
		return Session{}, fmt.Errorf("the service account token cannot be read: %w", err)
	}
	if token = bytes.TrimSpace(token); len(token) == 0 {
		return Session{}, fmt.Errorf("the service account token %s is empty", c.options.Token)
	}
	if c.options.AssumeRole == "" {
		return c.withToken(ctx, string(token))
	}
	first, err := c.assume(ctx, string(token), min(c.seconds, shortest))
	if err != nil {
		return Session{}, err
	}
	return c.chain(ctx, first, min(c.seconds, anyRole))
}

// withToken asks for as many seconds as wanted, or for an hour where the role is
// known to allow no more.
func (c *Client) withToken(ctx context.Context, token string) (Session, error) {
	if c.capped.Load() {
		return c.assume(ctx, token, min(c.seconds, anyRole))
	}
	s, err := c.assume(ctx, token, c.seconds)
	if c.seconds <= anyRole || !isTooLong(err) {
		return s, err
	}
	c.capped.Store(true)
	return c.assume(ctx, token, anyRole)
}

// isTooLong recognises the only ValidationError that a shorter duration fixes.
func isTooLong(err error) bool {
	var e smithy.APIError
	return errors.As(err, &e) && e.ErrorCode() == "ValidationError" && strings.Contains(e.ErrorMessage(), "DurationSeconds")
}

// assume assumes Role with the token.
func (c *Client) assume(ctx context.Context, token string, seconds int32) (Session, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	begin := time.Now()
	out, err := c.sts(aws.AnonymousCredentials{}).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: &c.options.Role, RoleSessionName: &c.options.Name, WebIdentityToken: &token, DurationSeconds: &seconds,
	})
	if err != nil {
		return Session{}, explain(err)
	}
	return newSession(out.Credentials, begin, seconds)
}

// chain assumes AssumeRole with the session of Role.
func (c *Client) chain(ctx context.Context, first Session, seconds int32) (Session, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	begin := time.Now()
	credentials := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{
			AccessKeyID:     first.AccessKeyID,
			SecretAccessKey: first.SecretAccessKey,
			SessionToken:    first.SessionToken,
		}, nil
	})
	in := &sts.AssumeRoleInput{RoleArn: &c.options.AssumeRole, RoleSessionName: &c.options.Name, DurationSeconds: &seconds}
	if c.options.ExternalID != "" {
		in.ExternalId = &c.options.ExternalID
	}
	out, err := c.sts(credentials).AssumeRole(ctx, in)
	if err != nil {
		return Session{}, fmt.Errorf("assumeRole: %w", explain(err))
	}
	return newSession(out.Credentials, begin, seconds)
}

func (c *Client) sts(credentials aws.CredentialsProvider) *sts.Client {
	o := sts.Options{Region: c.options.Region, Credentials: credentials, HTTPClient: c.http, Retryer: aws.NopRetryer{}}
	if c.options.Endpoint != "" {
		o.BaseEndpoint = &c.options.Endpoint
		o.Region = policy.SigningRegion(c.options.Endpoint, o.Region)
	}
	return sts.New(o)
}

// newSession trusts the clock that says the session ends sooner: AWS's, or
// this machine's with the duration that was asked for. A machine whose clock is
// behind would otherwise believe in a session that is over.
func newSession(c *types.Credentials, begin time.Time, seconds int32) (Session, error) {
	if c == nil || aws.ToString(c.AccessKeyId) == "" || aws.ToString(c.SecretAccessKey) == "" || aws.ToString(c.SessionToken) == "" ||
		c.Expiration == nil {
		return Session{}, errors.New("STS answered without credentials")
	}
	expires := begin.Add(time.Duration(seconds) * time.Second)
	if c.Expiration.Before(expires) {
		expires = *c.Expiration
	}
	return Session{
		AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken,
		Obtained: begin.Round(0), Expires: expires.Round(0),
	}, nil
}
