// Package doctor is the command `ampbridge doctor`. It checks everything between a
// cluster's Prometheus and its workspace, and reports what failed and how to fix
// it. This package collects the facts. policy/check judges them, and doctor/report prints
// the result.
//
// There is one file for each system: cluster.go, admission.go, webhook.go and sync.go
// for Kubernetes; issuer.go for the issuer as AWS reads it; aws.go and role.go for the
// account; session.go for STS; amp.go for query and write; pods.go and metrics.go for
// running pods; stuck.go and refused.go for pods that do not start or are refused; inpod.go
// for doctor's own pod; pre.go for a cluster without ampbridge. runner.go runs the checks in
// their order.
//
// Doctor needs these permissions in Kubernetes. If one is missing, its checks are skipped:
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
//	  events                         list (why pods do not start)
//	  serviceaccounts                get, list
//	  serviceaccounts/token          create
//	everywhere
//	  namespaces                     get, list
//	  mutatingwebhookconfigurations  get
//	  services, endpointslices       get, list
//	  the issuer's discovery         ClusterRole system:service-account-issuer-discovery
package doctor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/doctor/report"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// Output formats.
const (
	Text = output.Text
	JSON = output.JSON
	YAML = output.YAML
	HTML = "html"
)

// Options are the command's flags.
type Options struct {
	Policy     string
	Kubeconfig string
	Overrides  kube.Overrides
	// System is ampbridge's own namespace.
	System string
	// Namespace and ServiceAccount select some service accounts.
	Namespace, ServiceAccount string
	// InPod is true if doctor checks the pod that it runs in.
	InPod bool
	// Pre is true if doctor checks what an installation needs.
	Pre bool
	// NoWrite excludes the remote write, which leaves one sample.
	NoWrite bool
	// Require is the scope of the checks that must have run; empty: a skipped check
	// leads to an [UncheckedError].
	Require check.Scope
	Output  string
	// Terminal is true if stdout is a terminal. Findings are then printed as soon as they exist.
	Terminal bool
	// Color is true if the text has colours.
	Color bool
	// Version is that of this program.
	Version string
	// Wait is how long Run repeats the checks until all pass; 0: they run once.
	Wait time.Duration
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

// waitPause is the time between two runs of the checks.
const waitPause = 3 * time.Second

// UncheckedError means that no check failed and some were skipped, so it is not
// proven that samples can flow.
type UncheckedError struct{ summary string }

// Error implements error.
func (e *UncheckedError) Error() string { return e.summary }

// Run runs the checks and writes the report to stdout. The error is the summary of
// the report if a check failed or was skipped. With [Options.Wait] it repeats the
// checks until all pass. It reports the last run, and writes to stderr what it waits for.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout, stderr io.Writer) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	write := map[string]func(io.Writer, check.Report) error{
		Text: report.Printer{Color: o.Color}.Text, JSON: report.JSON, YAML: writeYAML, HTML: report.HTML,
	}[o.Output]
	var ended func(check.Finding)
	if o.Output == Text && o.Terminal {
		live := report.Printer{Color: o.Color}.Live(stdout)
		ended, write = live.Print, live.End
	}
	result, err := repeat(ctx, o, stdin, stderr, ended)
	if err != nil {
		return err
	}
	if err := write(stdout, result); err != nil {
		return err
	}
	return exitError(result)
}

// writeYAML writes the JSON report as YAML.
func writeYAML(w io.Writer, r check.Report) error {
	var b bytes.Buffer
	if err := report.JSON(&b, r); err != nil {
		return err
	}
	return output.WriteJSON(w, YAML, b.Bytes())
}

// exitError returns an error if a check of the report failed, or was skipped although it
// is required.
func exitError(r check.Report) error {
	missing, required := r.Missing(), r.Head.Require
	switch {
	case len(missing) > 0 && required != "":
		return fmt.Errorf("%s; --require %s: not checked: %s", r.Summary(), required, check.JoinFew(missing))
	case len(r.Failed()) > 0:
		return errors.New(r.Summary())
	case len(missing) > 0:
		return &UncheckedError{r.Summary()}
	}
	return nil
}

// repeat runs the checks until all pass or the time to wait is over. It calls ended with
// each finding; nil: nothing is called.
func repeat(ctx context.Context, o Options, stdin io.Reader, stderr io.Writer, ended func(check.Finding)) (check.Report, error) {
	read := func() io.Reader { return stdin }
	if o.Policy == policyfile.Stdin {
		content, err := policyfile.Read(o.Policy, stdin)
		if err != nil {
			return check.Report{}, err
		}
		read = func() io.Reader { return bytes.NewReader(content) }
	}
	for end, said := time.Now().Add(o.Wait), ""; ; {
		result, err := once(ctx, o, read(), ended)
		if err != nil {
			return check.Report{}, err
		}
		if exitError(result) == nil || !time.Now().Add(waitPause).Before(end) {
			return result, nil
		}
		if summary := result.Summary(); summary != said {
			said = summary
			if _, err := fmt.Fprintf(stderr, "doctor waits: %s\n", summary); err != nil {
				return check.Report{}, err
			}
		}
		select {
		case <-ctx.Done():
			return check.Report{}, ctx.Err()
		case <-time.After(waitPause):
		}
	}
}

func once(ctx context.Context, o Options, stdin io.Reader, ended func(check.Finding)) (check.Report, error) {
	began := time.Now()
	x := &runner{Options: o, stdin: stdin}
	x.checks.Added = ended
	x.checks.Head = check.Head{
		Started: o.Now().UTC().Truncate(time.Second), Require: o.Require, Versions: check.Versions{Ampbridge: o.Version},
	}
	switch {
	case o.InPod:
		x.inPod(ctx, environment(os.Environ()))
	case o.Pre:
		x.beforeInstallation(ctx)
	default:
		x.inCluster(ctx)
	}
	x.checks.Head.Seconds = time.Since(began).Round(100 * time.Millisecond).Seconds()
	return x.checks.Report(), ctx.Err()
}

// loadPolicy reads the policy from its file.
func (x *runner) loadPolicy() error {
	text, err := policyfile.Read(x.Policy, x.stdin)
	if err != nil {
		return err
	}
	x.checks.Head.PolicyRevision = revision(text)
	x.policy, err = policyfile.Parse(x.Policy, text)
	return err
}

// revision identifies a policy by its text.
func revision(text []byte) string {
	return fmt.Sprintf("%x", sha256.Sum256(text))[:12]
}
