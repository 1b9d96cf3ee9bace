package cli

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/doctor"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy/check"
)

func registerDoctor(flags *pflag.FlagSet, o *doctor.Options) {
	registerInstalledPolicy(flags, &o.Policy)
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	registerSystemNamespace(flags, &o.System, systemNamespace)
	keepOldName(flags, "ampbridge-namespace")
	registerNamespace(flags, &o.Namespace, "", "check only service accounts of this `NAMESPACE` (default: all)")
	registerServiceAccount(flags, &o.ServiceAccount, "check only service accounts of this `NAME`")
	flags.BoolVar(&o.InPod, "in-pod", false, "check the pod that doctor runs in: its token, its environment, its sidecar")
	flags.BoolVar(&o.Pre, "pre", false, "check what an installation with this --policy needs, before it: nothing is written")
	flags.BoolVar(&o.NoWrite, "no-write", false, "write no sample (ampbridge_doctor, one for each service account and destination)")
	flags.StringVar((*string)(&o.Require), "require", "",
		"exit with 1 if a check of this `SCOPE` was skipped: all, cluster or aws (default: exit with 3 if any was)")
	flags.DurationVar(&o.Wait, "wait", 0, "repeat the checks until all pass, for this `DURATION` at most, such as 5m")
	registerOutput(flags, &o.Output, doctor.HTML)
}

func validateDoctor(o doctor.Options) error {
	if o.InPod && (o.Namespace != "" || o.ServiceAccount != "") {
		return usage.Errorf("--in-pod checks its own pod: leave out --namespace and --service-account")
	}
	if o.Namespace == "" && o.ServiceAccount != "" {
		return usage.Errorf("--service-account needs --namespace: add for example -n monitoring")
	}
	if o.Pre && o.InPod {
		return usage.Errorf("--pre checks a cluster before the installation: leave out --in-pod")
	}
	if o.Pre && o.Policy == "" {
		return usage.Errorf("--pre needs --policy FILE: the policy that you are going to install")
	}
	if o.Require != "" {
		if err := usage.OneOf("require", string(o.Require),
			string(check.ScopeAll), string(check.ScopeCluster), string(check.ScopeAWS)); err != nil {
			return err
		}
	}
	if o.InPod && o.Require != "" && o.Require != check.ScopeAll {
		return usage.Errorf("--in-pod needs no access to the cluster: write --require all, or leave out --require")
	}
	if o.Wait < 0 {
		return usage.Errorf("--wait=%s: it must not be negative; write for example --wait 5m", o.Wait)
	}
	return nil
}

// newDoctor returns `ampbridge doctor`, which checks everything between a cluster's
// Prometheus and its workspace.
func newDoctor() *cobra.Command {
	var o doctor.Options
	var color string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check everything from the cluster to the workspace, and show how to fix what failed",
		Long: `Doctor checks everything from the cluster to the workspace: issuer, namespace,
service account, grant, webhook, a pod created in a dry run, a token, the issuer's
keys as AWS reads them, OIDC provider, role and its documents, a session of STS for a
real token, a signed query and a signed remote write, and the running Prometheus pods.
The report begins with the verdict. Each check is a line: ✓ pass, ✗ fail, with the fix
below, ! warn, – skip, with the reason. Results of many service accounts are one line.
On a terminal each check is also printed when it ends.

Doctor uses your kubeconfig and your AWS credentials. If one of them is missing, it skips
some checks. It changes nothing, except that the remote write leaves one sample. --no-write
leaves out that check.

The exit status is
  0  every check passed, with or without warnings
  1  a check failed, or was skipped although --require requires it, or doctor itself
     failed
  2  the command line is wrong
  3  no check failed, and some were skipped (not with --require)
Checks that a flag excludes, or that do not apply, do not count as skipped.
With --require cluster, checks of AWS may be skipped, and with --require aws those of
the cluster. With --require all, none may.

With --wait, doctor reports once all checks pass, or the state at the end of that time.

The sidecar's image contains doctor too. In a pod that ampbridge injected:

  kubectl exec -n NAMESPACE POD -c ampbridge-config -- /ampbridge doctor --in-pod`,
		Example: `  ampbridge doctor
  ampbridge doctor --policy policy.yaml --namespace monitoring --service-account prometheus

  # Before an installation: versions, permissions, quotas, and which pods will be injected.
  ampbridge doctor --pre --policy policy.yaml

  # After an installation or a rollout.
  ampbridge doctor --wait 5m

  # A page to share.
  ampbridge doctor -o html > doctor.html

  # For other programs.
  ampbridge doctor -o json | jq .failed`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateDoctor(o); err != nil {
				return err
			}
			var err error
			o.Terminal = isTerminal(cmd.OutOrStdout())
			if o.Color, err = useColor(color, o.Terminal, os.Getenv); err != nil {
				return err
			}
			o.Version = clientVersion().String()
			return doctor.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	registerDoctor(cmd.Flags(), &o)
	cmd.Flags().StringVar(&color, "color", colorAuto, "`WHEN` the text has colours: auto (on a terminal, unless NO_COLOR is set), "+
		"always or never")
	return cmd
}
