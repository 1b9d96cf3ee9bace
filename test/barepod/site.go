// Package barepod runs what the kubelet runs of an injected pod as plain processes of this
// machine: the config sidecar, a Prometheus, and what reloads it. There is no control plane,
// and no volume but directories, so that a test can have many pods side by side. What the
// webhook would put into the pod is made from a policy by the same code.
//
//	site := barepod.New(t)
//	pod := site.Pod(t, barepod.Options{Program: path, Version: "3.15", Delivery: policy.DeliveryRelay})
//	pod.Start(t)
//	pod.EventuallyDelivered(t, 1)
//
// What is scraped is a counter that grows by one with each scrape, so a gap in what AWS's
// double received is a scrape that was lost, and no Prometheus need be asked for it.
package barepod

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// scrapes is the metric that grows by one with each scrape.
const scrapes = "barepod_scrapes_total"

// Site is what pods of a test share: AWS's double, the sidecar's program, and the target
// that they scrape.
type Site struct {
	*ststest.STS
	program string
	target  *httptest.Server
	pods    atomic.Int64
	counts  sync.Map // of the target: path to *atomic.Int64
}

// New builds the sidecar and starts the rest; all of it ends with the test.
func New(tb testing.TB) *Site {
	tb.Helper()
	s := &Site{STS: ststest.Start(tb, awstest.Options{Keep: []string{scrapes, "up"}})}
	s.AllowShortSessions()
	s.program = tools.Build(tb, "github.com/ampbridge/ampbridge/cmd/config-sidecar")
	s.target = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		count, known := s.counts.Load(r.URL.Path)
		if !known {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = fmt.Fprintf(w, "# TYPE %s counter\n%s %d\n", scrapes, scrapes, count.(*atomic.Int64).Add(1)) // the client went away
	}))
	tb.Cleanup(s.target.Close)
	return s
}

// Options is one pod.
type Options struct {
	// Program is Prometheus's, and Version what admission knows of it; empty: nothing.
	Program, Version string
	// Delivery is sigv4 or relay.
	Delivery policy.Delivery
	// Agent runs Prometheus in agent mode.
	Agent bool
	// MetricsPort is the sidecar's; 0: it serves no metrics.
	MetricsPort int
}

// Pod makes a pod with a workspace in an account of its own, so that faults of the account
// are the pod's alone. It does not run yet.
func (s *Site) Pod(tb testing.TB, o Options) *Pod {
	tb.Helper()
	n := s.pods.Add(1)
	id := fmt.Sprintf("%012d", 100000000000+n)
	p := &Pod{site: s, options: o, Account: s.Account(id), dir: tb.TempDir(), path: fmt.Sprintf("/metrics/%d", n)}
	p.Workspace = p.Account.CreateWorkspace(ststest.Region, "central")
	p.count = &atomic.Int64{}
	s.counts.Store(p.path, p.count)
	role := s.Role(tb, id, "writer", 43200)
	admin := iam.NewFromConfig(s.Config(p.Account.AdminCredentials(), ststest.Region))
	_, err := admin.PutRolePolicy(tb.Context(), &iam.PutRolePolicyInput{
		RoleName: aws.String("writer"), PolicyName: aws.String("write-samples"),
		PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`),
	})
	testkit.Must(tb, err)
	for _, dir := range []string{"source", "data"} {
		testkit.Must(tb, os.Mkdir(filepath.Join(p.dir, dir), 0o750))
	}
	p.address = testkit.FreeAddr(tb)
	testkit.Must(tb, p.SetConfig(""))
	p.config, err = p.sidecarConfig(role)
	testkit.Must(tb, err)
	tb.Cleanup(func() {
		p.Stop()
		if tb.Failed() {
			tb.Logf("the sidecar's log:\n%s\nPrometheus's log:\n%s\nserved:\n%s", p.Sidecar.log.String(), p.Server.log.String(), p.served())
		}
	})
	p.Sidecar = &Process{name: "config sidecar", command: func() *exec.Cmd { return p.sidecarCommand() }}
	p.Server = &Process{name: "Prometheus", command: p.serverCommand}
	return p
}

// sidecarConfig is what the webhook makes of a policy with one destination.
func (p *Pod) sidecarConfig(role string) (sidecarconfig.Config, error) {
	parsed, err := policy.Parse(fmt.Appendf(nil, `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev, issuer: %q}
destinations:
- name: central
  workspace: %s
  role: %s
  endpoint: %s
  delivery: %s
  remoteWrite:
    queueConfig: {batchSendDeadline: 500ms, minBackoff: 100ms, maxBackoff: 1s, maxShards: 4}
grants:
- {namespaces: [%s], serviceAccounts: [%s], destinations: [central]}
sts:
  endpoint: %s
  caBundle: |
    %s
`, ststest.Issuer, p.Workspace.ARN, role, p.site.URL, p.options.Delivery, ststest.Subject.Namespace, ststest.Subject.ServiceAccount,
		p.site.TLSURL, strings.ReplaceAll(strings.TrimSpace(string(p.site.CA)), "\n", "\n    ")))
	if err != nil {
		return sidecarconfig.Config{}, err
	}
	entitlement, ok := parsed.Entitled(ststest.Subject)
	if !ok {
		return sidecarconfig.Config{}, errors.New("the policy does not entitle the pod")
	}
	c := sidecarconfig.New(parsed, entitlement)
	c.Source, c.Target, c.File = filepath.Join(p.dir, "source"), filepath.Join(p.dir, "target"), configFile
	c.Credentials, c.Token, c.Private = filepath.Join(p.dir, "memory", "credentials"), p.site.Token, true
	c.MetricsPort = sidecarconfig.NoMetrics
	if p.options.MetricsPort != 0 {
		c.MetricsPort = int32(p.options.MetricsPort)
	}
	c.Prometheus = sidecarconfig.Prometheus{Address: p.address, Version: p.options.Version}
	return c, nil
}

// Fail makes calls of this pod's account go wrong: see [awstest.Cloud.Fail].
func (p *Pod) Fail(target string, fault awstest.Fault) (stop func()) {
	return p.Account.Fail(target, fault).Stop
}
