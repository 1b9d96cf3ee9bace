// Command cmd serves the AWS double of package awstest, so that people can try AWS clients with it:
//
//	go run ./test/awstest/cmd --prometheus "$(which prometheus)" \
//	    --workspace 111122223333/eu-west-1/central \
//	    --issuer https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF
//
// It prints the environment variables to set, and then one line per call, until it is
// interrupted.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// list is a flag that can be repeated.
type list []string

func (l *list) String() string { return strings.Join(*l, " ") }

func (l *list) Set(value string) error {
	*l = append(*l, value)
	return nil
}

// config holds the values of the flags.
type config struct {
	options       awstest.Options
	workspaces    list
	issuers       list
	privateCA     bool
	upstreamCA    string
	bearer        string
	subject       string
	audience      string
	shortSessions bool
	caFile        string
}

func (c *config) register(f *flag.FlagSet) {
	f.StringVar(&c.options.Listen, "listen", "127.0.0.1:4510", "`address` for HTTP")
	f.StringVar(&c.options.ListenTLS, "listen-tls", "127.0.0.1:4511", "`address` for HTTPS")
	f.StringVar(&c.options.Prometheus, "prometheus", "", "`path` of a Prometheus binary, which keeps the samples")
	f.Var(&c.workspaces, "workspace", "a workspace to make, as `account/region/alias`; may be repeated")
	f.Var(
		&c.issuers,
		"issuer",
		"an issuer that STS can reach: its `URL`, for one with keys of its own, or URL=upstream for one behind a server such as a "+
			"kube-apiserver; may be repeated",
	)
	f.BoolVar(&c.privateCA, "private-ca", false, "give the issuers certificates of a CA that needs a thumbprint")
	f.StringVar(&c.upstreamCA, "upstream-ca", "", "`file` with the CA of the upstreams, in PEM")
	f.StringVar(&c.bearer, "upstream-token-file", "", "`file` with the bearer token for the upstreams")
	f.StringVar(
		&c.subject,
		"subject",
		"system:serviceaccount:monitoring:prometheus",
		"`subject` of the token that is printed for an issuer with keys of its own",
	)
	f.StringVar(&c.audience, "audience", "sts.amazonaws.com", "`audience` of that token")
	f.BoolVar(&c.shortSessions, "short-sessions", false, "accept session durations from one second on")
	f.StringVar(&c.caFile, "ca-file", "", "`file` to write the CA of the HTTPS endpoint to")
}

// run serves until ctx ends.
func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) error {
	var c config
	flags := flag.NewFlagSet("awstest", flag.ContinueOnError)
	flags.SetOutput(stderr)
	c.register(flags)
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: everything is a flag", flags.Arg(0))
	}
	if len(c.workspaces) == 0 {
		c.workspaces = list{"111122223333/eu-west-1/central"}
	}
	var mu sync.Mutex
	c.options.Logf = func(format string, arguments ...any) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintf(stderr, format+"\n", arguments...) // an error cannot be reported anywhere
	}
	cloud, err := awstest.New(ctx, c.options)
	if err != nil {
		return err
	}
	if err := c.populate(cloud, stdout); err != nil {
		return errors.Join(err, cloud.Close())
	}
	<-ctx.Done()
	return cloud.Close()
}

// populate creates what the flags ask for, and prints how to use it, as shell lines.
func (c *config) populate(cloud *awstest.Cloud, out io.Writer) error {
	if c.shortSessions {
		cloud.AllowShortSessions()
	}
	if c.caFile != "" {
		if err := os.WriteFile(c.caFile, cloud.CA, 0o644); err != nil {
			return err
		}
	}
	var text strings.Builder
	for _, line := range cloud.Environ() {
		fmt.Fprintf(&text, "export %s\n", line)
	}
	fmt.Fprintf(&text, "# the same over HTTPS: %s\n", cloud.TLSURL)
	seen := map[string]bool{}
	for _, spec := range c.workspaces {
		parts := strings.Split(spec, "/")
		if len(parts) != 3 || len(parts[0]) != 12 {
			return fmt.Errorf("--workspace %q: want account/region/alias, such as 111122223333/eu-west-1/central", spec)
		}
		account := cloud.Account(parts[0])
		if !seen[account.ID] {
			seen[account.ID] = true
			fmt.Fprintf(&text, "# an administrator of account %s\n", account.ID)
			for _, line := range account.AdminCredentials().Environ() {
				fmt.Fprintf(&text, "export %s\n", line)
			}
		}
		workspace := account.CreateWorkspace(parts[1], parts[2])
		fmt.Fprintf(&text, "# workspace %s: %s\n#   %s\n", workspace.Alias, workspace.ARN, workspace.RemoteWriteURL(cloud.URL))
	}
	for _, spec := range c.issuers {
		if err := c.addIssuer(cloud, spec, &text); err != nil {
			return fmt.Errorf("--issuer %q: %w", spec, err)
		}
	}
	_, err := io.WriteString(out, text.String())
	return err
}

func (c *config) addIssuer(cloud *awstest.Cloud, spec string, text *strings.Builder) error {
	ca := awstest.PublicCA
	if c.privateCA {
		ca = awstest.PrivateCA
	}
	name, upstream, proxied := strings.Cut(spec, "=")
	if !proxied {
		signer := awstest.NewSigner(name, jose.RS256)
		issuer, err := cloud.RegisterIssuer(name, signer, ca)
		if err != nil {
			return err
		}
		fmt.Fprintf(
			text,
			"# issuer %s, thumbprint %s; a token of %s:\nTOKEN=%s\n",
			name,
			issuer.Thumbprint(),
			c.subject,
			signer.Token(c.subject, c.audience),
		)
		return nil
	}
	handler, err := c.upstream(upstream)
	if err != nil {
		return err
	}
	issuer, err := cloud.RegisterIssuer(name, handler, ca)
	if err != nil {
		return err
	}
	fmt.Fprintf(text, "# issuer %s, thumbprint %s, from %s\n", name, issuer.Thumbprint(), upstream)
	return nil
}

func (c *config) upstream(address string) (http.Handler, error) {
	base, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if c.upstreamCA != "" {
		pem, err := os.ReadFile(c.upstreamCA)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", c.upstreamCA)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	var token []byte
	if c.bearer != "" {
		if token, err = os.ReadFile(c.bearer); err != nil {
			return nil, err
		}
	}
	return awstest.Upstream(base, transport, strings.TrimSpace(string(token))), nil
}
