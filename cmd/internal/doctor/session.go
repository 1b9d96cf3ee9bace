package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

const (
	sessionName = "ampbridge-doctor"
	// sessionSeconds is the shortest lifetime that STS allows for a session.
	sessionSeconds = 900
)

// exchange describes how to get a session for a role. If there is a second role (assumeRole),
// that session is used to get one for the second role.
type exchange struct {
	region           string
	role, assumeRole policy.ARN
	// externalID is for the session of the second role; empty: none.
	externalID string
	sts        policy.STS
}

// session requests a session from STS once, as the sidecar does.
func (e exchange) session(ctx context.Context, token string) (aws.CredentialsProvider, *check.Refusal) {
	client, err := httpClient(e.sts.ProxyURL, e.sts.CABundle)
	if err != nil {
		return nil, &check.Refusal{Text: "sts: " + err.Error()}
	}
	newClient := func(creds aws.CredentialsProvider) *sts.Client {
		o := sts.Options{Region: e.region, Credentials: creds, HTTPClient: client}
		if e.sts.Endpoint != "" {
			o.BaseEndpoint = &e.sts.Endpoint
			o.Region = policy.SigningRegion(e.sts.Endpoint, e.region)
		}
		return sts.New(o)
	}
	out, err := newClient(aws.AnonymousCredentials{}).AssumeRoleWithWebIdentity(ctx, &sts.AssumeRoleWithWebIdentityInput{
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
	input := sts.AssumeRoleInput{
		RoleArn: aws.String(e.assumeRole.String()), RoleSessionName: aws.String(sessionName), DurationSeconds: aws.Int32(sessionSeconds),
	}
	if e.externalID != "" {
		input.ExternalId = &e.externalID
	}
	chained, err := newClient(keys).AssumeRole(ctx, &input)
	if err != nil {
		r := refusal(err)
		r.Second = e.assumeRole
		return nil, &r
	}
	return static(chained.Credentials), nil
}

func static(c *types.Credentials) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(
		aws.ToString(c.AccessKeyId),
		aws.ToString(c.SecretAccessKey),
		aws.ToString(c.SessionToken),
	)
}

// httpClient returns an HTTP client with the proxy and the CAs of the policy; empty: the proxy
// of the environment and the CAs of the system.
func httpClient(proxyURL, caBundle string) (*http.Client, error) {
	transport := &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{MinVersion: tls.VersionTLS12},
	}
	if proxyURL != "" {
		proxy, err := url.Parse(proxyURL)
		if err != nil {
			return nil, errors.New("proxyURL is not a URL")
		}
		transport.Proxy = http.ProxyURL(proxy)
	}
	if caBundle != "" {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM([]byte(caBundle)) {
			return nil, errors.New("caBundle contains no certificate")
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	return &http.Client{Transport: transport, Timeout: probeTimeout}, nil
}

// checkSession exchanges the subject's token for a session of STS.
func (x *runner) checkSession(ctx context.Context, s *subject, d policy.Destination) {
	about := x.between(s, d)
	if s.token == "" {
		x.checks.Skip(about, "there is no token to exchange", check.Session)
		return
	}
	x.checks.Run(check.Session, about, func() check.Finding {
		session, refused := x.exchange(s, d).session(ctx, s.token)
		switch {
		case refused == nil:
		case refused.NoAnswer() && x.podWithSession(ctx, s, d) != "":
			return passed("this machine could not reach STS (%s), and the sidecar of pod %s has a session", refused, x.podWithSession(ctx, s, d))
		case refused.NoAnswer() && x.policy.STSFor(d) == (policy.STS{}):
			return check.Unanswered(*refused)
		default:
			f := check.RefusedSession(*refused, x.trustFinding(about))
			if strings.Contains(refused.Text, "thumbprint") && x.published.Thumbprint != "" {
				f.Fix.Commands = []check.Command{check.SetThumbprint(x.target(d).Provider, x.published.Thumbprint)}
			}
			return f
		}
		s.keepSession(d.Name, session)
		return passed("STS gives a session of %s", x.policy.RoleFor(d, s.Subject))
	})
}

// podWithSession returns a pod of the subject with a sidecar that has a session for d;
// empty: there is none, or it cannot be read.
func (x *runner) podWithSession(ctx context.Context, s *subject, d policy.Destination) string {
	if x.cluster == nil {
		return ""
	}
	pods, err := x.prometheusPods(ctx, s)
	if err != nil {
		return ""
	}
	for _, pod := range pods {
		status, err := kube.SidecarStatus(ctx, x.cluster.client.CoreV1(), pod.Pod)
		if err == nil && slices.ContainsFunc(status.Destinations, func(state sidecarconfig.DestinationStatus) bool {
			return state.Name == d.Name && state.Valid
		}) {
			return pod.about.Pod
		}
	}
	return ""
}

// exchange returns how a pod of s gets a session for d.
func (x *runner) exchange(s *subject, d policy.Destination) exchange {
	return exchange{d.Workspace.Region, x.policy.RoleFor(d, s.Subject), d.AssumeRole, d.ExternalID, x.policy.STSFor(d)}
}

// trustFinding returns the finding about the trust document; zero: there is none.
func (x *runner) trustFinding(about check.About) check.Finding {
	for _, f := range x.checks.Report().Of(check.TrustDocument) {
		if f.About == about {
			return f
		}
	}
	return check.Finding{}
}

// between returns the object of a finding about a subject and its destination.
func (x *runner) between(s *subject, d policy.Destination) check.About {
	return check.About{Subject: s.String(), Destination: d.Name, Account: x.policy.Role(d).Account}
}

// checkWrite writes one sample with the subject's session.
func (x *runner) checkWrite(ctx context.Context, s *subject, d policy.Destination) {
	about := x.between(s, d)
	session := s.sessions[d.Name]
	switch {
	case !d.Writes():
		x.checks.Add(check.Excluded(check.Write, about, "%s is for queries alone (access: [query])", d.Name))
		return
	case x.NoWrite:
		x.checks.Exclude(about, "excluded by --no-write", check.Write)
		return
	case session == nil:
		if !x.checks.Blocked(check.Write, about) {
			f := check.Skipped(check.Write, about, "there is no session to sign with")
			if x.flowProves(ctx, about, d) {
				f.Proof = check.Flow
			}
			x.checks.Add(f)
		}
		return
	}
	x.checks.Run(check.Write, about, func() check.Finding {
		labels := map[string]string{
			"__name__": marker, "cluster": x.policy.Cluster.Name, "namespace": s.Namespace, "service_account": s.ServiceAccount,
		}
		if refused := write(ctx, session, d, labels, time.Now()); refused != nil {
			return x.refusedBy(ctx, check.Write, about, d, *refused, check.RefusedWrite)
		}
		return passed("%s accepted one sample of %s", d.Workspace.ID(), marker)
	})
}

// checkRead queries with the subject's session, if the destination's access includes queries.
func (x *runner) checkRead(ctx context.Context, s *subject, d policy.Destination) {
	if !d.Queries() {
		return
	}
	about := x.between(s, d)
	session := s.sessions[d.Name]
	if session == nil {
		x.checks.Skip(about, "there is no session to sign with", check.Read)
		return
	}
	x.checks.Run(check.Read, about, func() check.Finding {
		if refused := queryOf(ctx, session, d); refused != nil {
			return x.refusedBy(ctx, check.Read, about, d, *refused, check.RefusedRead)
		}
		return passed("%s answers a query of %s", d.Workspace.ID(), s)
	})
}

// refusedBy judges a refusal of AMP. If AMP's default address does not answer, the cause is this
// machine's network. An endpoint or a proxy of the policy is part of the installation: if it
// does not answer, the check fails, unless a pod has a session.
func (x *runner) refusedBy(
	ctx context.Context,
	id check.ID,
	about check.About,
	d policy.Destination,
	r check.Refusal,
	judge func(check.Refusal, policy.Destination) check.Finding,
) check.Finding {
	if r.NoAnswer() {
		if slices.ContainsFunc(x.subjects, func(s *subject) bool { return x.podWithSession(ctx, s, d) != "" }) {
			f := skipped("this machine could not reach AMP; the check flow shows whether the pods can: %s", r)
			if id != check.Read && x.flowProves(ctx, about, d) { // a write proves no right to query
				f.Proof = check.Flow
			}
			return f
		}
		if d.Endpoint == "" && d.RemoteWrite.ProxyURL == "" && d.RemoteWrite.CABundle == "" {
			return check.Unanswered(r)
		}
	}
	f := judge(r, d)
	if doubt, found := x.checks.Doubt(id, about); found && r.Status == http.StatusForbidden && f.Fix != nil {
		f.Fix.Summary = fmt.Sprintf("check the conditions that %s names: %s", doubt.ID, doubt.Message)
	}
	return f
}

// flowProves reports whether the flow of a pod proves that d accepts writes: every injected pod
// that the finding is about writes to d.
func (x *runner) flowProves(ctx context.Context, about check.About, d policy.Destination) bool {
	if x.cluster == nil {
		return false
	}
	for _, s := range x.subjects {
		granted := slices.ContainsFunc(s.destinations, func(g policy.Destination) bool { return g.Name == d.Name })
		if !granted || about.Subject != "" && about.Subject != s.String() {
			continue
		}
		pods, err := x.prometheusPods(ctx, s)
		if err != nil || slices.ContainsFunc(pods, func(pod *runningPod) bool { return pod.config != nil && !x.writesTo(ctx, pod, d.Name) }) {
			return false
		}
	}
	return true
}

// writesTo reports whether the pod's sidecar serves the destination's block.
func (x *runner) writesTo(ctx context.Context, pod *runningPod, destination string) bool {
	return !slices.Contains(x.leftOut(ctx, pod), policy.BlockName(destination)) &&
		slices.ContainsFunc(pod.config.Destinations, func(d sidecarconfig.Destination) bool { return d.Name == destination })
}

// keepSession keeps a session for the checks of the write and the query.
func (s *subject) keepSession(destination string, keys aws.CredentialsProvider) {
	if s.sessions == nil {
		s.sessions = map[string]aws.CredentialsProvider{}
	}
	s.sessions[destination] = keys
}
