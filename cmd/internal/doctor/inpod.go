package doctor

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// environment returns a process's environment, by name.
func environment(entries []string) map[string]string {
	env := map[string]string{}
	for _, e := range entries {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return env
}

// inPod checks the pod that doctor runs in. In the sidecar's container it uses the
// sidecar config. In any other container it uses AWS's environment variables.
func (x *runner) inPod(ctx context.Context, env map[string]string) {
	given, err := readSidecarConfig(env)
	if err != nil {
		x.checks.Add(check.Failed(check.Identity, check.About{}, check.NewFix("run doctor in the container "+
			"ampbridge-config of an injected pod, or set AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE and AWS_REGION"), "%v", err))
		return
	}
	x.checks.Cluster = given.cluster
	var want check.WantedToken
	if x.Policy != "" {
		x.source = policySource{file: x.Policy}
		if x.checks.Run(check.Policy, check.About{}, func() check.Finding { return x.policyFinding(x.loadPolicy()) }) {
			want.Issuer, want.Audience = x.policy.Cluster.Issuer, x.policy.Token.Audience
		}
	}
	var token string
	var claims check.Claims
	want.Source = given.token
	x.checks.Run(check.TokenMinted, check.About{}, func() (f check.Finding) {
		token, claims, f = readToken(given.token, want, x.Now())
		return f
	})
	if given.config != nil {
		x.checks.Exclude(
			check.About{},
			"the environment of the Prometheus container is not visible here: run doctor without --in-pod",
			check.Identity,
		)
	} else {
		x.checks.Run(check.Identity, check.About{}, func() check.Finding { return check.Environment(check.ContainerState{Env: env}) })
	}
	if token == "" {
		x.checks.Skip(check.About{}, "there is no token to verify", check.SigningKeys)
	} else {
		ask := func() *check.Refusal {
			_, refused := given.destinations[0].session(ctx, token)
			return refused
		}
		x.checks.Run(check.SigningKeys, check.About{}, func() check.Finding { return x.keys(ctx, claims.Issuer, token, claims, ask) })
	}
	known := given.config == nil && x.policy != nil
	if known {
		given.cluster = x.policy.Cluster.Name
	}
	for _, d := range given.destinations {
		if known {
			d = x.known(d, claims)
		}
		x.fromPod(ctx, given, d, token, claims)
	}
	if given.config != nil {
		x.ownSidecar(ctx, given)
	}
}

// sidecarConfig is what a pod needs to get its sessions.
type sidecarConfig struct {
	cluster      string
	token        string
	sts          policy.STS
	destinations []podDestination
	// config is the config that the webhook gave the sidecar; nil: doctor runs in another container.
	config *sidecarconfig.Config
}

type podDestination struct {
	exchange
	name string
	// url is the remote_write address; empty: it is not known here.
	url string
	amp sidecarconfig.AMP
	// readOnly and queries are the destination's access; false: it is the destination of a
	// sidecar, which only writes.
	readOnly, queries bool
}

func readSidecarConfig(env map[string]string) (sidecarConfig, error) {
	if text := env[sidecarconfig.Variable]; text != "" {
		a, err := sidecarconfig.Decode(text)
		if err != nil {
			return sidecarConfig{}, err
		}
		o := sidecarConfig{cluster: a.Cluster, token: a.Token, sts: policy.STS(a.STS), config: &a}
		if len(a.Destinations) == 0 {
			return sidecarConfig{}, errors.New("the sidecar config has no destination")
		}
		for _, d := range a.Destinations {
			role, err := policy.ParseARN(d.Role)
			var second policy.ARN
			if err == nil && d.AssumeRole != "" {
				second, err = policy.ParseARN(d.AssumeRole)
			}
			if err != nil {
				return sidecarConfig{}, err
			}
			e := exchange{region: d.Region, role: role, assumeRole: second, externalID: d.ExternalID, sts: o.sts}
			if d.STS != nil {
				e.sts = policy.STS(*d.STS)
			}
			o.destinations = append(o.destinations, podDestination{exchange: e, name: d.Name, url: d.Block.URL, amp: d.AMP})
		}
		return o, nil
	}
	role, file := env["AWS_ROLE_ARN"], env["AWS_WEB_IDENTITY_TOKEN_FILE"]
	region := env["AWS_REGION"]
	if region == "" {
		region = env["AWS_DEFAULT_REGION"]
	}
	if role == "" || file == "" || region == "" {
		return sidecarConfig{}, errors.New(
			"this is not a container of ampbridge, and AWS_ROLE_ARN, AWS_WEB_IDENTITY_TOKEN_FILE or AWS_REGION is missing: the pod has " +
				"no identity for AWS",
		)
	}
	arn, err := policy.ParseARN(role)
	if err != nil {
		return sidecarConfig{}, fmt.Errorf("AWS_ROLE_ARN: %w", err)
	}
	endpoint := policy.STS{Endpoint: env["AWS_ENDPOINT_URL_STS"]}
	return sidecarConfig{
		token:        file,
		sts:          endpoint,
		destinations: []podDestination{{exchange: exchange{region: region, role: arn, sts: endpoint}}},
	}, nil
}

// readToken reads the pod's token. The returned token is empty if AWS would refuse it.
func readToken(path string, want check.WantedToken, now time.Time) (string, check.Claims, check.Finding) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", check.Claims{}, failed(
			check.NewFix(
				"the volume with the token is missing: replace the pod, in a labelled namespace and with a service account of a grant",
			),
			"the token file %s does not exist",
			path,
		)
	case err != nil:
		return "", check.Claims{}, failed(
			check.NewFix("let the container's user read the file: run it as the user that the pod's other containers have"),
			"the token cannot be read: %v",
			err,
		)
	case len(bytes.TrimSpace(text)) == 0:
		return "", check.Claims{}, failed(
			check.NewFix("replace the pod, and check the kubelet of its node"),
			"the token file %s is empty",
			path,
		)
	}
	token := string(bytes.TrimSpace(text))
	claims, err := check.ReadClaims(token)
	if err != nil {
		return "", claims, failed(check.NewFix("write the projected service-account token to the file"), "%s: %v", path, err)
	}
	f := check.Token(claims, want, now)
	if f.Status == check.Fail {
		token = ""
	}
	return token, claims, f
}

// fromPod gets a session for one destination and writes a sample, as the pod does.
func (x *runner) fromPod(ctx context.Context, given sidecarConfig, d podDestination, token string, claims check.Claims) {
	about := check.About{Subject: claims.Subject, Destination: d.name, Account: d.role.Account}
	if token == "" {
		x.checks.Skip(about, "there is no token to exchange", check.Session, check.Write)
		return
	}
	var session aws.CredentialsProvider
	x.checks.Run(check.Session, about, func() check.Finding {
		var refused *check.Refusal
		if session, refused = d.session(ctx, token); refused != nil {
			return check.RefusedSession(*refused, check.Finding{})
		}
		return passed("STS gives a session of %s", d.role)
	})
	if d.queries {
		x.checks.Run(check.Read, about, func() check.Finding {
			if session == nil {
				return skipped("there is no session to sign with")
			}
			if refused := d.query(ctx, session); refused != nil {
				return check.RefusedRead(*refused, policy.Destination{Name: d.name})
			}
			return passed("%s answers a query", d.url)
		})
	}
	switch {
	case d.readOnly:
		x.checks.Add(check.Excluded(check.Write, about, "%s is for queries alone (access: [query])", d.name))
		return
	case x.NoWrite:
		x.checks.Exclude(about, "excluded by --no-write", check.Write)
		return
	case session == nil || d.url == "":
		x.checks.Skip(about, "the workspace is not known here", check.Write)
		return
	}
	x.checks.Run(check.Write, about, func() check.Finding {
		subject, _ := policy.ParseSubject(claims.Subject)
		labels := map[string]string{
			"__name__": marker, "cluster": given.cluster, "namespace": subject.Namespace, "service_account": subject.ServiceAccount,
		}
		if refused := d.write(ctx, session, labels); refused != nil {
			return check.RefusedWrite(*refused, policy.Destination{Name: d.name})
		}
		return passed("%s accepted one sample of %s", d.url, marker)
	})
}

// write sends one sample to the destination.
func (d podDestination) write(ctx context.Context, session aws.CredentialsProvider, labels map[string]string) *check.Refusal {
	client, refused := ampClient(d.amp.ProxyURL, d.amp.CABundle)
	if refused != nil {
		return refused
	}
	return writeTo(ctx, client, session, d.region, d.url, labels, time.Now())
}

// query queries the workspace of the destination.
func (d podDestination) query(ctx context.Context, session aws.CredentialsProvider) *check.Refusal {
	client, refused := ampClient(d.amp.ProxyURL, d.amp.CABundle)
	if refused != nil {
		return refused
	}
	return query(ctx, client, session, d.region, d.url)
}

// known completes the destination of a pod that has only AWS's variables. It finds the
// destination in the policy by the pod's role.
func (x *runner) known(d podDestination, claims check.Claims) podDestination {
	subject, err := policy.ParseSubject(claims.Subject)
	if err != nil {
		return d
	}
	granted, _ := x.policy.Entitled(subject)
	for _, to := range granted.Destinations {
		if x.policy.RoleFor(to, subject) != d.role {
			continue
		}
		d.name, d.url, d.region = to.Name, to.URL(), to.Workspace.Region
		d.assumeRole, d.externalID = to.AssumeRole, to.ExternalID
		d.amp = sidecarconfig.AMP{ProxyURL: to.RemoteWrite.ProxyURL, CABundle: to.RemoteWrite.CABundle}
		d.readOnly, d.queries = !to.Writes(), to.Queries()
		return d
	}
	return d
}

// ownSidecar reads the status file, and the metrics of the pod's Prometheus over
// loopback.
func (x *runner) ownSidecar(ctx context.Context, given sidecarConfig) {
	x.checks.Run(check.Sidecar, check.About{}, func() check.Finding {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(given.config.Credentials), sidecarconfig.StatusFile))
		if err != nil {
			return skipped("the sidecar has written no status: %v", err)
		}
		status, err := sidecarconfig.DecodeStatus(text)
		if err != nil {
			return skipped("%v", err)
		}
		return check.SidecarState(check.ObservedSidecar{Status: status, Config: *given.config}, x.Now())
	})
	x.checks.Run(check.Flow, check.About{}, func() check.Finding {
		at := given.config.Prometheus
		if at.Address == "" {
			return skipped("the address of Prometheus is not known")
		}
		return x.flow(ctx, blocks(*given.config), func() (string, error) {
			text, err := loopback(ctx, "http://"+at.Address+at.Prefix+"/metrics")
			if err != nil && at.TLS {
				text, err = loopback(ctx, "https://"+at.Address+at.Prefix+"/metrics")
			}
			return text, err
		}, func(problem string) check.Finding { return skipped("%s", problem) })
	})
}

// loopback reads a page of a program in the same pod.
func loopback(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		// The certificate names a Service, not the loopback address. The server is in the same
		// pod, and nothing secret is sent to it.
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}, //nolint:gosec // see above
	}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	const enough = 16 << 20
	text, err := io.ReadAll(io.LimitReader(response.Body, enough))
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", url, response.Status)
	}
	return string(text), err
}
