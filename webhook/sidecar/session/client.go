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
	// anyRole is the duration that every role allows, and the longest one for a chained role.
	anyRole  = 3600
	shortest = 900
	longest  = 43200
)

// attempt is the timeout of one call to STS, from name look-up to the last byte.
const attempt = 5 * time.Second

// Options configures a [Client].
type Options struct {
	// Token is the file with the pod's service-account token. It is read for every call,
	// because the kubelet replaces it.
	Token string
	// Name is the role session name, see [Name].
	Name string
	// Seconds is the duration to request.
	Seconds int
	// Region is the region of STS. Role is assumed with the token. AssumeRole, if
	// set, is assumed with the session of Role; that call sends ExternalID, if that
	// is set.
	Region, Role, AssumeRole, ExternalID string
	// Endpoint replaces https://sts.<region>.<suffix>, and signatures are for its region. ProxyURL
	// replaces the environment's proxy. CABundle is PEM text with roots that are added to the system's.
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

// Client gets the sessions of one destination. Its methods can be called from any
// goroutine.
type Client struct {
	options Options
	http    *http.Client
	seconds int32 // to request

	// capped is true after STS refused more than one hour for the role.
	capped atomic.Bool
}

// NewClient returns a Client. It returns an error if the proxy or the CA bundle cannot be
// parsed.
func NewClient(o Options) (*Client, error) {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		// Sessions are hours apart. In that time a firewall may drop a kept connection.
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

// Obtain makes one attempt to get a session. It assumes Role with the token, and then
// AssumeRole, if set, with the session of Role. Errors have short,
// stable text: the same error has the same text each time.
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

// withToken requests the configured duration, or an hour if the role is
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

// isTooLong reports whether err is the ValidationError that a shorter duration fixes.
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

// newSession uses the earlier of two end times: the one from AWS, or the duration by
// this machine's clock. Otherwise a machine with a slow clock would use a session that has
// expired.
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
