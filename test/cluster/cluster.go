// Package cluster starts a real Kubernetes control plane for tests and for the
// demo: etcd, kube-apiserver and, unless a caller does without,
// kube-controller-manager (and, on request, kube-scheduler) as processes on loopback, with no root and no containers, in
// seconds. The programs come from [tools].
//
// There is no node, so pods are admitted and stored but do not run. What is
// real is everything that admission and identity need: webhooks (register them
// by a https://127.0.0.1:port URL), RBAC, pod security, quotas and limit
// ranges, and service account tokens of any audience, signed for the issuer the
// caller chooses. Whoever plays that issuer's host serves [Cluster.OIDC].
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

	"github.com/ampbridge/ampbridge/test/tools"
)

// DefaultIssuer is the issuer of a cluster whose Options name none. It has the
// shape of an EKS issuer.
const DefaultIssuer = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"

const (
	// readyTimeout is generous, because machines that run tests are often busy.
	readyTimeout = 90 * time.Second
	// portAttempts is how often a start is tried anew after another process took
	// a port between its choice and its use.
	portAttempts = 3
)

// Options say what kind of cluster to start. The zero value is a cluster with
// [DefaultIssuer].
type Options struct {
	// Issuer is the service account issuer, an https URL, which tokens carry
	// byte for byte; AKS's ends in a slash. Empty means [DefaultIssuer].
	Issuer string
	// NoControllers starts no kube-controller-manager. [Cluster.Namespace] then creates
	// what its controllers would create, and nothing else of a controller's work is done.
	NoControllers bool
	// Scheduler starts kube-scheduler too. Without nodes it leaves pods pending,
	// with the events that say so.
	Scheduler bool
	// ExtraAPIServerArgs come after kube-apiserver's own flags and win over them.
	ExtraAPIServerArgs []string
	// ExtraControllerManagerArgs do the same for kube-controller-manager.
	ExtraControllerManagerArgs []string
	// Progress gets a line for each step of the start. Nil means none, but for
	// the building of tools, which goes to standard error.
	Progress io.Writer
}

// A Cluster is a running control plane. It is safe for concurrent use.
type Cluster struct {
	// URL is the API server's, https://127.0.0.1:port.
	URL string
	// Issuer is the service account issuer, as it was given.
	Issuer string
	// Dir holds the cluster's files, with each program's log in <program>.log,
	// until Close removes it.
	Dir string

	config    *rest.Config
	client    kubernetes.Interface
	processes []*process // in the order of their start
	// rootCA is published by [Cluster.Namespace]; nil if the controllers publish it.
	rootCA []byte

	closing  sync.Once
	closeErr error
}

// Start starts a cluster that ends with the test. When it cannot, it ends the
// test with the reason and the last lines of the log of the program at fault.
func Start(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	start := time.Now()
	c, err := New(tb.Context(), options)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(); err != nil {
			tb.Error(err)
		}
	})
	tb.Logf("cluster: %s is ready after %s", c.URL, time.Since(start).Round(time.Millisecond))
	return c
}

// New starts a cluster and returns when it answers and its controllers work.
// The context bounds the start alone; the caller ends the cluster with Close.
// The error of a program that does not come up carries its log's last lines.
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
	// The time for building tools does not count.
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
		say(options.Progress, "a port was taken meanwhile, trying others")
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

// Close stops the cluster's processes and removes its files. A process that
// ended before is an error, with the end of its log: it explains what failed
// meanwhile. A second call does nothing and returns what the first did.
func (c *Cluster) Close() error {
	c.closing.Do(func() {
		var errs []error
		for _, p := range c.processes {
			errs = append(errs, p.exited())
		}
		// The API server has to go before etcd: without etcd it hardly ever stops.
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

// Config returns the administrator's client configuration, without a rate
// limit on the client's side. The caller may change it.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Client returns the administrator's client.
func (c *Cluster) Client() kubernetes.Interface { return c.client }

// Kubeconfig returns the path of the administrator's kubeconfig file.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.Dir, "admin.kubeconfig") }

func say(w io.Writer, format string, args ...any) {
	if w != nil {
		// Progress that nobody can read is no reason to fail.
		_, _ = fmt.Fprintf(w, "cluster: "+format+"\n", args...)
	}
}

// jwksURI is where a token's verifier is told to find the keys.
func jwksURI(issuer string) string { return strings.TrimSuffix(issuer, "/") + jwksPath }
