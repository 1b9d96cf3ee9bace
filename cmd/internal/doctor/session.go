package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

const (
	sessionName = "ampbridge-doctor"
	// sessionSeconds is the shortest session that STS gives.
	sessionSeconds = 900
)

// exchange is a way to a session: the token's, or the chained role's behind it.
type exchange struct {
	region           string
	role, assumeRole policy.ARN
	sts              policy.STS
}

// session asks STS once, as the sidecar does.
func (e exchange) session(ctx context.Context, token string) (aws.CredentialsProvider, *check.Refusal) {
	client, err := stsHTTP(e.sts)
	if err != nil {
		return nil, &check.Refusal{Text: err.Error()}
	}
	ask := func(creds aws.CredentialsProvider) *sts.Client {
		o := sts.Options{Region: e.region, Credentials: creds, HTTPClient: client}
		if e.sts.Endpoint != "" {
			o.BaseEndpoint = &e.sts.Endpoint
		}
		return sts.New(o)
	}
	out, err := ask(aws.AnonymousCredentials{}).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
		RoleArn: aws.String(e.role.String()), RoleSessionName: aws.String(sessionName),
		WebIdentityToken: &token, DurationSeconds: aws.Int32(sessionSeconds),
	})
	if err != nil {
		r := refusal(err)
		return nil, &r
	}
	keys := static(out.Credentials)
	if e.assumeRole.IsZero() {
		return keys, nil
	}
	chained, err := ask(keys).AssumeRole(ctx, &sts.AssumeRoleInput{
		RoleArn: aws.String(e.assumeRole.String()), RoleSessionName: aws.String(sessionName), DurationSeconds: aws.Int32(sessionSeconds),
	})
	if err != nil {
		r := refusal(err)
		r.Second = e.assumeRole
		return nil, &r
	}
	return static(chained.Credentials), nil
}

func static(c *types.Credentials) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(aws.ToString(c.AccessKeyId), aws.ToString(c.SecretAccessKey), aws.ToString(c.SessionToken))
}

// stsHTTP reaches STS as the policy says.
func stsHTTP(o policy.STS) (*http.Client, error) {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}}
	if o.ProxyURL != "" {
		proxy, err := url.Parse(o.ProxyURL)
		if err != nil {
			return nil, errors.New("sts.proxyURL is not a URL")
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	if o.CABundle != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM([]byte(o.CABundle)) {
			return nil, errors.New("sts.caBundle holds no certificate")
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{Transport: transport, Timeout: probeTimeout}, nil
}

// checkSession has STS exchange the subject's token.
func (x *runner) checkSession(ctx context.Context, s *subject, d policy.Destination) {
	about := x.between(s, d)
	if s.token == "" {
		x.checks.Skip(about, "there is no token to exchange", check.Session)
		return
	}
	x.checks.Run(check.Session, about, func() check.Finding {
		session, refused := x.way(s, d).session(ctx, s.token)
		if refused != nil {
			return check.RefusedSession(*refused, x.aligned(about))
		}
		s.session(d.Name, session)
		return passed("STS gives a session of %s", x.policy.RoleFor(d, s.Subject))
	})
}

// way is how a pod of s comes to a session for d.
func (x *runner) way(s *subject, d policy.Destination) exchange {
	return exchange{d.Workspace.Region, x.policy.RoleFor(d, s.Subject), d.AssumeRole, x.policy.STS}
}

// aligned tells whether trust was read, and found right.
func (x *runner) aligned(about check.About) bool {
	for _, f := range x.checks.Report().Findings {
		if f.Check == check.TrustDocument && f.About == about {
			return f.State == check.Pass
		}
	}
	return false
}

// between is a subject and its destination.
func (x *runner) between(s *subject, d policy.Destination) check.About {
	return check.About{Subject: s.String(), Destination: d.Name, Account: x.policy.Role(d).Account}
}

// checkWrite writes one sample with the subject's session.
func (x *runner) checkWrite(ctx context.Context, s *subject, d policy.Destination) {
	about := x.between(s, d)
	session := s.sessions[d.Name]
	switch {
	case x.NoWrite:
		x.checks.LeaveOut(about, "left out (--no-write)", check.Write)
		return
	case session == nil:
		x.checks.Skip(about, "there is no session to sign with", check.Write)
		return
	}
	x.checks.Run(check.Write, about, func() check.Finding {
		labels := map[string]string{
			"__name__": marker, "cluster": x.policy.Cluster.Name, "namespace": s.Namespace, "service_account": s.ServiceAccount,
		}
		if refused := write(ctx, session, d, labels, time.Now()); refused != nil {
			return check.RefusedWrite(*refused, d)
		}
		return passed("%s took one sample of %s", d.Workspace.ID(), marker)
	})
}

// session keeps a session for the write.
func (s *subject) session(destination string, keys aws.CredentialsProvider) {
	if s.sessions == nil {
		s.sessions = map[string]aws.CredentialsProvider{}
	}
	s.sessions[destination] = keys
}
