// Package doctor is the command `ampbridge doctor`: it walks the chain from a
// cluster's Prometheus to its workspace, and says which link is not aligned and
// how to mend it. It observes; what an observation means is said by the pure
// package doctor at the root.
//
// One file for each edge: cluster.go and admission.go talk to the Kubernetes API,
// issuer.go to the issuer as AWS would, aws.go to STS and AMP (IAM is read
// through awsiam), pods.go to running pods through the API server's proxy, and
// inpod.go looks at the pod that doctor itself runs in.
//
// What it needs of Kubernetes; whatever is missing is a link that is not looked
// at:
//
//	in its own namespace
//	  configmaps, secrets            get, list (the policy, the serving certificate)
//	  deployments, cronjobs, pods    list (sync)
//	  leases                         get (sync's)
//	  pods/proxy                     get (sync's metrics)
//	in the namespace of a subject
//	  configmaps                     get (Prometheus's configuration and environment)
//	  pods                           list; create (as a dry run: nothing is made)
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

	"github.com/ampbridge/ampbridge/cmd/internal/kubeconfig"
	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
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
	// Namespace and ServiceAccount narrow the look to some subjects.
	Namespace, ServiceAccount string
	InPod                     bool
	// NoWrite leaves the remote write out, which costs one sample.
	NoWrite bool
	Output  string
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

func (o *Options) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`; - is standard input (default: the ConfigMap of the installation)")
	kubeconfig.Register(flags, &o.Kubeconfig)
	flags.StringVar(&o.System, "ampbridge-namespace", "ampbridge-system", "the `NAMESPACE` that ampbridge is installed in")
	flags.StringVarP(&o.Namespace, "namespace", "n", "", "look at service accounts of this `NAMESPACE` alone")
	flags.StringVar(&o.ServiceAccount, "service-account", "", "look at service accounts of this `NAME` alone")
	flags.BoolVar(&o.InPod, "in-pod", false, "look at the pod that doctor runs in: its token, its environment, its sidecar")
	flags.BoolVar(&o.NoWrite, "no-write", false, "write no sample (ampbridge_doctor, one for each subject and destination)")
	flags.StringVarP(&o.Output, "output", "o", Text, "output `FORMAT`: text, json or html")
}

func (o *Options) validate() error {
	if o.InPod && (o.Namespace != "" || o.ServiceAccount != "") {
		return usage.Errorf("--in-pod looks at its own pod: leave --namespace and --service-account out")
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
		Short: "Walk the whole chain, say which link is broken, and how to mend it",
		Long: `Doctor walks the chain from the cluster to the workspace, link by link: issuer,
namespace, service account, grant, webhook, a pod created in a dry run, a token, the
issuer's keys as AWS reads them, OIDC provider, role and its documents, a session of
STS for a real token, a signed query and a signed remote write, and the Prometheus
pods that run. Each link is a line: ✓ it holds, ✗ it is broken, with the mend below, !
it wants a look, – it was not checked, and why.

A kubeconfig and AWS credentials are used where there are any; either may be missing.
Nothing is changed, but that the remote write leaves one sample (--no-write).

The status is
  0  everything that was asked was checked, and holds (warnings, !, count as holding)
  1  a link is broken, or doctor could not do its work
  2  the command line is wrong
  3  no link is broken, and something was not checked
What a flag leaves out, or does not apply, is not asked.

In a pod that ampbridge injected, the sidecar's image has doctor too:

  kubectl exec -n NAMESPACE POD -c ampbridge-config -- /ampbridge doctor --in-pod`,
		Example: `  ampbridge doctor
  ampbridge doctor --policy policy.yaml --namespace monitoring --service-account prometheus

  # A page to hand on.
  ampbridge doctor -o html > doctor.html

  # For other programs.
  ampbridge doctor -o json | jq .broken`,
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

// UncheckedError is the verdict where no link is broken, and something was not
// checked: it is no proof that the chain holds.
type UncheckedError struct{ verdict string }

// Error implements error.
func (e *UncheckedError) Error() string { return e.verdict }

// Run examines, and writes the ladder on stdout. The error is the verdict, where
// a link is broken or was not checked.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	if o.Now == nil {
		o.Now = time.Now
	}
	x := &runner{Options: o, stdin: stdin}
	if o.InPod {
		x.inPod(ctx, environment(os.Environ()))
	} else {
		x.walk(ctx)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	ladder := x.checks.Report()
	write := map[string]func(io.Writer) error{Text: ladder.Text, JSON: ladder.JSON, HTML: ladder.HTML}[o.Output]
	if err := write(stdout); err != nil {
		return err
	}
	switch {
	case len(ladder.Failed()) > 0:
		return errors.New(ladder.Verdict())
	case len(ladder.Unchecked()) > 0:
		return &UncheckedError{ladder.Verdict()}
	}
	return nil
}

// loadPolicy reads the policy from its file.
func (x *runner) loadPolicy() (err error) {
	x.policy, err = policyfile.Load(x.Policy, x.stdin)
	return err
}
