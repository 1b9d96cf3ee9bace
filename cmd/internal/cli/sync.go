package cli

import (
	"errors"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// newSync returns `ampbridge sync`, which brings the AWS accounts in sync with the policy.
func newSync() *cobra.Command {
	var o reconcile.Options
	var logFormat, logLevel string
	cmd := &cobra.Command{
		Use:   "sync --policy FILE",
		Short: "Bring the AWS accounts in sync with the policy",
		Long: `Sync creates and corrects what the policy's destinations need in their AWS accounts: the
cluster's OIDC provider, and for each destination a role. Exactly the granted service
accounts may assume the role, and its permission document allows writing to that workspace
and nothing else. If the policy no longer has a destination, no service account may assume
its role any more.

Sync watches service accounts, namespaces and the policy file, and changes the trust of
roles with them. Every trust.interval it compares all of AWS again. If several processes
run, one works and the others wait. If a service account is gone for longer than
trust.pruneAfter and no pod uses it, roles no longer trust it.

With --once it prints the plan, applies it, and ends with status 0 if everything is in
sync. It ends with status 1 if a change failed or was refused. Sync never changes what
others made. A second run changes nothing.

With --remove it deletes what this cluster owns in the policy's accounts. Stop the webhook
and every other sync first, because a running sync creates it again. If the policy has
cluster.issuer, the removal needs no cluster; one that answers must have that issuer.

Credentials come from where the AWS SDKs look for them. Sync assumes the syncRole of an
account if the policy has one.`,
		Example: `  # See the changes, then make them.
  ampbridge sync --once --policy policy.yaml --dry-run
  ampbridge sync --once --policy policy.yaml

  # As a controller.
  ampbridge sync --policy policy.yaml

  # To uninstall: see what it deletes, then delete it.
  ampbridge sync --remove --policy policy.yaml --dry-run
  ampbridge sync --remove --policy policy.yaml --yes

  # For other programs.
  ampbridge sync --once --policy policy.yaml -o json | jq .inSync`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validateSync(o); err != nil {
				return err
			}
			if !syncControls(o) {
				err := reconcile.Run(cmd.Context(), o, cmd.InOrStdin(), cmd.OutOrStdout())
				if errors.Is(err, reconcile.ErrUnconfirmed) {
					return usage.Errorf("%v", err)
				}
				return err
			}
			logger, err := newLogger(cmd.ErrOrStderr(), logFormat, logLevel)
			if err != nil {
				return err
			}
			return reconcile.Control(cmd.Context(), o, logger)
		},
	}
	registerSyncAlone(cmd.Flags(), &o, &logFormat, &logLevel)
	return cmd
}

// registerSync adds the flags that sync shares with plan, and further formats.
func registerSync(flags *pflag.FlagSet, o *reconcile.Options, formats ...string) {
	registerPolicy(flags, &o.Policy)
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	registerOutput(flags, &o.Output, formats...)
	registerSystemNamespace(flags, &o.Namespace, ownNamespace())
	flags.BoolVar(&o.AllowShrink, "allow-shrink", false,
		"prune even if more than half of a namespace's subjects, or of an account's namespaces, would go at once")
	flags.IntVar(&o.TrustQuota, "trust-quota", plan.TrustQuota,
		"the accounts' quota of `CHARACTERS` in a role's trust document, if it was raised")
	flags.IntVar(&o.ProviderQuota, "provider-quota", reconcile.ProviderQuota, "the accounts' quota of OIDC `PROVIDERS`, if it was raised")
}

// registerSyncAlone adds all flags of sync.
func registerSyncAlone(flags *pflag.FlagSet, o *reconcile.Options, logFormat, logLevel *string) {
	registerSync(flags, o)
	keepOldName(flags, "namespace")
	flags.BoolVar(&o.Once, "once", false, "sync once and end, as in a CronJob")
	flags.BoolVar(&o.DryRun, "dry-run", false, "with --once or --remove: print the plan and change nothing")
	flags.BoolVar(&o.Remove, "remove", false,
		"delete what this cluster owns in the policy's accounts: its roles and its OIDC provider; needs --yes")
	flags.BoolVar(&o.Yes, "yes", false, "with --remove: really delete")
	grouped(flags, "Flags of the controller", func(flags *pflag.FlagSet) {
		flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "`HOST:PORT` for /healthz and /readyz")
		flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "`HOST:PORT` for /metrics")
		flags.StringVar(&o.StatusAddr, "status-addr", "",
			"`HOST:PORT` on loopback for a page with the last result of sync and auditor, such as 127.0.0.1:8082; "+
				"empty: no page")
		registerLog(flags, logFormat, logLevel)
	})
	grouped(flags, "Flags of the auditor", func(flags *pflag.FlagSet) {
		flags.StringVar(&o.Image, "image", "", "`IMAGE` of the config sidecar, as the webhook has it: turns the auditor on")
		flags.BoolVar(&o.NoBreaker, "no-breaker", false,
			"never pause the injection of a workload when its pods hang on the config sidecar")
		flags.BoolVar(&o.NoSidecarStatus, "no-sidecar-status", false,
			"do not read the status of config sidecars, at their pods' addresses, for events about sessions and refused writes")
		flags.StringSliceVar(&o.Excluded, "excluded-namespaces", nil,
			"`NAMESPACES`, separated by commas, that the webhook's registration excludes")
		flags.DurationVar(&o.PullGrace, "pull-grace", 0,
			"`DURATION` that a node may take to pull the image before the injection of the workload pauses (default 1m0s)")
	})
}

// ownNamespace returns the namespace of the pod that this process runs in.
func ownNamespace() string {
	name, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	if err != nil {
		return systemNamespace
	}
	return strings.TrimSpace(string(name))
}

// validateSync names what is missing or wrong among the flags.
func validateSync(o reconcile.Options) error {
	switch {
	case o.Policy == "":
		return missing("policy", examplePolicy)
	case o.Yes && !o.Remove:
		return usage.Errorf("--yes is for --remove")
	case o.Namespace == "":
		return usage.Errorf("--system-namespace is empty")
	case o.Once && o.Remove:
		return usage.Errorf("--once and --remove exclude each other")
	case !syncControls(o) && o.Image != "":
		return usage.Errorf("--image is for the controller: the auditor runs as long as it does")
	case !syncControls(o) && o.StatusAddr != "":
		return usage.Errorf("--status-addr is for the controller: --once prints what it saw")
	case !syncControls(o):
	case o.StatusAddr != "" && !reconcile.LoopbackAddress(o.StatusAddr):
		return usage.Errorf(
			"--status-addr %q is not on loopback: write 127.0.0.1:8082, and use kubectl port-forward", o.StatusAddr)
	case o.DryRun:
		return usage.Errorf("--dry-run is for --once and --remove; or see ampbridge plan")
	case o.AllowShrink:
		return usage.Errorf("--allow-shrink is for --once: it is meant for one run; run it beside the controller")
	case o.NoBreaker && o.Image == "":
		return usage.Errorf("--no-breaker is for --image: without it there is no auditor")
	case o.NoSidecarStatus && o.Image == "":
		return usage.Errorf("--no-sidecar-status is for --image: without it there is no auditor")
	case len(o.Excluded) > 0 && o.Image == "":
		return usage.Errorf("--excluded-namespaces is for --image: without it there is no auditor")
	case o.PullGrace != 0 && (o.Image == "" || o.PullGrace < time.Second):
		return usage.Errorf("--pull-grace is for --image, and 1s or more")
	case o.Policy == policyfile.Stdin:
		return usage.Errorf("--policy - is for --once: the controller reads the file again and again")
	}
	if o.TrustQuota < plan.TrustQuota {
		return usage.Errorf("--trust-quota %d is less than what every account has: write %d or more", o.TrustQuota, plan.TrustQuota)
	}
	if o.ProviderQuota != 0 && o.ProviderQuota < reconcile.ProviderQuota {
		return usage.Errorf(
			"--provider-quota %d is less than what every account has: write %d or more",
			o.ProviderQuota,
			reconcile.ProviderQuota,
		)
	}
	return nil
}

// syncControls reports whether sync runs as a controller, until it is stopped.
func syncControls(o reconcile.Options) bool { return !o.Once && !o.Remove }
