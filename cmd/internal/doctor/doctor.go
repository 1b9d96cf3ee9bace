// Package doctor is the command `ampbridge doctor`. It checks everything between a
// cluster's Prometheus and its workspace, and reports what failed and how to fix
// it. This package only observes: policy/check judges what it found, and
// doctor/report prints the result.
//
// There is one file for each system: cluster.go and admission.go for the Kubernetes
// API, issuer.go for the issuer as AWS reads it, aws.go for STS and AMP (awsiam
// reads IAM), pods.go for running pods through the API server's proxy, and inpod.go
// for the pod that doctor itself runs in.
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

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/doctor/report"
	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy/check"
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

func (o *Options) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`; - is standard input (default: the ConfigMap of the installation)")
	kube.RegisterFlag(flags, &o.Kubeconfig)
	flags.StringVar(&o.System, "ampbridge-namespace", "ampbridge-system", "the `NAMESPACE` that ampbridge is installed in")
	flags.StringVarP(&o.Namespace, "namespace", "n", "", "check only service accounts of this `NAMESPACE`")
	flags.StringVar(&o.ServiceAccount, "service-account", "", "check only service accounts of this `NAME`")
	flags.BoolVar(&o.InPod, "in-pod", false, "check the pod that doctor runs in: its token, its environment, its sidecar")
	flags.BoolVar(&o.NoWrite, "no-write", false, "write no sample (ampbridge_doctor, one for each service account and destination)")
	flags.StringVarP(&o.Output, "output", "o", Text, "output `FORMAT`: text, json or html")
}

func (o *Options) validate() error {
	if o.InPod && (o.Namespace != "" || o.ServiceAccount != "") {
		return usage.Errorf("--in-pod checks its own pod: leave out --namespace and --service-account")
	}
	if o.Namespace == "" && o.ServiceAccount != "" {
		return usage.Errorf("--service-account needs --namespace")
	}
	return usage.OneOf("output", o.Output, Text, JSON, HTML)
}

// New is the command.
func New() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything from the cluster to the workspace, and show how to fix what failed",
		Long: `Doctor checks everything from the cluster to the workspace: issuer, namespace,
service account, grant, webhook, a pod created in a dry run, a token, the issuer's
keys as AWS reads them, OIDC provider, role and its documents, a session of STS for a
real token, a signed query and a signed remote write, and the running Prometheus pods.
Each check is a line: ✓ pass, ✗ fail, with the fix below, ! warn, – skip, with the
reason.

Doctor uses your kubeconfig and your AWS credentials. Either may be missing: then it
skips some checks. It changes nothing, but the remote write leaves one sample
(--no-write).

The exit status is
  0  every check passed, with or without warnings
  1  a check failed, or doctor itself failed
  2  the command line is wrong
  3  no check failed, and some were skipped
Checks that a flag excludes, or that do not apply, do not count as skipped.

The sidecar's image contains doctor too. In a pod that ampbridge injected:

  kubectl exec -n NAMESPACE POD -c ampbridge-config -- /ampbridge doctor --in-pod`,
		Example: `  ampbridge doctor
  ampbridge doctor --policy policy.yaml --namespace monitoring --service-account prometheus

  # A page to share.
  ampbridge doctor -o html > doctor.html

  # For other programs.
  ampbridge doctor -o json | jq .failed`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	return cmd
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
