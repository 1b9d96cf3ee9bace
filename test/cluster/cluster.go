// Package cluster starts a real Kubernetes control plane for tests and for the demo. It runs etcd and
// kube-apiserver, by default kube-controller-manager, and on request kube-scheduler. All are processes on
// loopback that need no root and no containers and start within seconds. Package [tools] provides the
// programs.
//
// There is no node, so pods are admitted and stored but do not run. Everything that admission and identity
// need is real: webhooks (register them with a URL https://127.0.0.1:port), RBAC, pod security, quotas, limit
// ranges, and service account tokens with any audience for an issuer that the caller chooses. A server with
// the issuer's host name can serve [Cluster.OIDC].
//
//	c := cluster.Start(t, cluster.Options{Issuer: "https://oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE"})
//	c.Namespace(ctx, "monitoring", map[string]string{"ampbridge.io/injection": "enabled"})
//	token, err := c.Token(ctx, "monitoring", "default", "sts.amazonaws.com", 3600)
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// DefaultIssuer is the issuer of a cluster if its Options name none. It has the form of an EKS issuer.
const DefaultIssuer = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"

const (
	// readyTimeout is long, because machines that run tests are often busy.
	readyTimeout = 90 * time.Second
	// portAttempts is how often a start is tried if another process takes a port after it was chosen.
	portAttempts = 3
)

// Options describe the cluster to start. The zero value is a cluster with [DefaultIssuer].
type Options struct {
	// Issuer is the service account issuer, an https URL. Tokens contain it byte for byte; AKS's issuers end
	// with a slash. If empty, [DefaultIssuer] is used.
	Issuer string
	// NoControllers starts no kube-controller-manager. [Cluster.Namespace] then creates what its controllers
	// would create. No other work of a controller is done.
	NoControllers bool
	// Scheduler also starts kube-scheduler. Without nodes it leaves pods pending and records events about it.
	Scheduler bool
	// ExtraAPIServerArgs are added after kube-apiserver's own flags and override them.
	ExtraAPIServerArgs []string
	// ExtraControllerManagerArgs are the same for kube-controller-manager.
	ExtraControllerManagerArgs []string
	// Progress gets a line for each step of the start. If nil, nothing is written, except the output of
	// building tools, which goes to standard error.
	Progress io.Writer
}

// A Cluster is a running control plane. It is safe for concurrent use.
type Cluster struct {
	// URL is the API server's URL, https://127.0.0.1:port.
	URL string
	// Issuer is the service account issuer, as given in the options.
	Issuer string
	// Dir is the directory with the cluster's files, until Close removes it. Each program's log is in
	// <program>.log.
	Dir string

	config    *rest.Config
	client    kubernetes.Interface
	processes []*process // in the order of their start
	// rootCA is the CA that [Cluster.Namespace] publishes; nil if the controllers publish it.
	rootCA []byte

	closing  sync.Once
	closeErr error
}

// Start starts a cluster that ends with the test. If it cannot, it fails the test with the reason and the
// last log lines of the failed program.
func Start(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	start := time.Now()
	c, err := New(tb.Context(), options)
	testkit.CloseAfter(tb, c, err)
	tb.Logf("cluster: %s is ready after %s", c.URL, time.Since(start).Round(time.Millisecond))
	return c
}

// New starts a cluster and returns when it answers and its controllers work. The context limits only the
// start; the caller must call Close. If a program does not start, the error contains the last lines of its
// log.
func New(ctx context.Context, options Options) (*Cluster, error) {
	if options.Issuer == "" {
		options.Issuer = DefaultIssuer
	}
	if u, err := url.Parse(options.Issuer); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf(
			"cluster: Options.Issuer %q: want an https URL; the API server serves no discovery document for another",
			options.Issuer,
		)
	}
	programs, err := findPrograms(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	// The time to build tools does not count.
	ctx, cancel := context.WithTimeoutCause(ctx, readyTimeout, fmt.Errorf("not ready within %s", readyTimeout))
	defer cancel()
	for attempt := 1; ; attempt++ {
		c, err := start(ctx, options, programs)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, errPortTaken) || attempt == portAttempts {
			return nil, fmt.Errorf("cluster: %w", err)
		}
		say(options.Progress, "another process took a port, trying others")
	}
}

func findPrograms(ctx context.Context, options Options) (map[string]string, error) {
	names := []string{"etcd", "kube-apiserver"}
	if !options.NoControllers {
		names = append(names, "kube-controller-manager")
	}
	if options.Scheduler {
		names = append(names, "kube-scheduler")
	}
	progress := options.Progress
	if progress == nil {
		progress = os.Stderr
	}
	programs := make(map[string]string)
	for _, name := range names {
		path, err := tools.Find(ctx, name, progress)
		if err != nil {
			return nil, err
		}
		programs[name] = path
	}
	return programs, nil
}

// Close stops the cluster's processes and removes its files. If a process ended before, it returns an error
// with the end of the process's log, because that explains other failures. A second call does nothing and
// returns the same result.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		var errs []error
		for _, p := range c.processes {
			errs = append(errs, p.exited())
		}
		// The API server must stop before etcd, because without etcd it hardly ever stops.
		for _, p := range slices.Backward(c.processes) {
			p.stop()
		}
		errs = append(errs, os.RemoveAll(c.Dir))
		if err := errors.Join(errs...); err != nil {
			c.closeErr = fmt.Errorf("cluster: %w", err)
		}
	})
	return c.closeErr
}

// Config returns the administrator's client configuration, without a rate limit of the client. The caller may
// change it.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Client returns the administrator's client.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// Kubeconfig returns the path of the administrator's kubeconfig file.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "admin.kubeconfig") }

func say(w io.Writer, format string, args ...any) {
	if w != nil {
		// A failed write of progress must not fail the start.
		_, _ = fmt.Fprintf(w, "cluster: "+format+"\n", args...)
	}
}

// jwksURI returns the URL where verifiers of a token find the keys.
func jwksURI(issuer string) string { return strings.TrimSuffix(issuer, "/") + jwksPath }
