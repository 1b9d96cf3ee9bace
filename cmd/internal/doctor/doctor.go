// Package doctor is the command `ampbridge doctor`. It checks everything between a
// cluster's Prometheus and its workspace, and reports what failed and how to fix
// it. This package only observes: policy/check judges what it found, and
// doctor/report prints the result.
//
// There is one file for each system: cluster.go, admission.go, webhook.go and sync.go
// for Kubernetes; issuer.go for the issuer as AWS reads it; aws.go and role.go for the
// account; session.go for STS; amp.go for query and write; pods.go and metrics.go for
// running pods; inpod.go for doctor's own pod. runner.go runs the checks in their order.
//
// It needs these permissions in Kubernetes. Without one of them, a check is
// skipped:
//
//	in its own namespace
//	  configmaps, secrets            get, list (the policy, the serving certificate)
//	  deployments, cronjobs, pods    list (sync)
//	  leases                         get (sync's)
//	  pods/proxy                     get (sync's metrics)
//	in the namespace of a service account
//	  configmaps                     get (Prometheus's configuration and environment)
//	  pods                           list; create (as a dry run: nothing is stored)
//	  pods/proxy                     get
//	  serviceaccounts                get, list
//	  serviceaccounts/token          create
//	everywhere
//	  namespaces                     get, list
//	  mutatingwebhookconfigurations  get
//	  services, endpointslices       get, list
//	  the issuer's discovery         ClusterRole system:service-account-issuer-discovery
package doctor

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/doctor/report"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// Output formats.
const (
	Text = "text"
	JSON = "json"
	HTML = "html"
)

// Options are the command's flags.
type Options struct {
	Policy     string
	Kubeconfig string
	// System is ampbridge's own namespace.
	System string
	// Namespace and ServiceAccount select some service accounts.
	Namespace, ServiceAccount string
	InPod                     bool
	// NoWrite excludes the remote write, which leaves one sample.
	NoWrite bool
	Output  string
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

// UncheckedError means that no check failed and some were skipped: it is not
// proven that samples can flow.
type UncheckedError struct{ summary string }

// Error implements error.
func (e *UncheckedError) Error() string { return e.summary }

// Run runs the checks and writes the report to stdout. The error is the summary of
// the report if a check failed or was skipped.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	x := &runner{Options: o, stdin: stdin}
	if o.InPod {
		x.inPod(ctx, environment(os.Environ()))
	} else {
		x.inCluster(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	result := x.checks.Report()
	write := map[string]func(io.Writer, check.Report) error{Text: report.Text, JSON: report.JSON, HTML: report.HTML}[o.Output]
	if err := write(stdout, result); err != nil {
		return err
	}
	switch {
	case len(result.Failed()) > 0:
		return errors.New(result.Summary())
	case len(result.Unchecked()) > 0:
		return &UncheckedError{result.Summary()}
	}
	return nil
}

// loadPolicy reads the policy from its file.
func (x *runner) loadPolicy() (err error) {
	x.policy, err = policyfile.Load(x.Policy, x.stdin)
	return err
}
