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

// newSync returns `ampbridge sync`: it brings the AWS accounts in sync with the
// policy.
func newSync() *cobra.Command {
	var o reconcile.Options
	var logFormat, logLevel string
	cmd := &cobra.Command{
		Use:   "sync --policy FILE",
		Short: "Bring the AWS accounts in sync with the policy",
		Long: `Sync makes, and corrects, what the policy's destinations need in their AWS
accounts: the cluster's OIDC provider, and for each destination a role that
exactly the granted service accounts may assume, and whose permission document
lets it write to that workspace and nothing else. The role of a destination that
is gone from the policy is closed: no service account may assume it.

Sync follows service accounts, namespaces and the policy file as they change, and
changes whom roles trust; every trust.interval it compares all of AWS again.
Several processes may run: one works, the others stand by. Trust of a service
account that is gone for longer than trust.pruneAfter is taken away, unless a pod
of it runs.

With --once it prints the plan, applies it, and ends with status 0 when everything
is in sync, with 1 when something failed or was refused. What others made is never
changed. A second run changes nothing.

With --remove it deletes what this cluster owns in the policy's accounts. Stop
the webhook and every other sync first: a sync that runs makes it again.

Credentials come from where the AWS SDKs look for them; an account with a
syncRole in the policy is reached by assuming it.`,
		Example: `  # See what would be done, then do it.
  ampbridge sync --once --policy policy.yaml --dry-run
  ampbridge sync --once --policy policy.yaml

  # As a controller.
  ampbridge sync --policy policy.yaml

  # At the end: see what would be deleted, then delete it.
  ampbridge sync --remove --policy policy.yaml --dry-run
  ampbridge sync --remove --policy policy.yaml --yes

  # For other programs.
  ampbridge sync --once --policy policy.yaml -o json | jq .inSync`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := errors.Join(validateSync(o), validateLog(logFormat, logLevel)); err != nil {
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
	registerSyncAlone(cmd.Flags(), &o)
	registerLog(cmd.Flags(), &logFormat, &logLevel)
	return cmd
}

// registerSync adds the flags that sync shares with plan.
func registerSync(flags *pflag.FlagSet, o *reconcile.Options) {
	registerPolicy(flags, &o.Policy)
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	flags.StringVarP(&o.Output, "output", "o", reconcile.Text, "output `FORMAT`: text or json")
	registerSystemNamespace(flags, &o.Namespace, ownNamespace())
	flags.BoolVar(
		&o.AllowShrink,
		"allow-shrink",
		false,
		"prune even where more than half of a namespace's subjects, or of an account's namespaces, would go at once",
	)
	flags.IntVar(
		&o.TrustQuota,
		"trust-quota",
		plan.TrustQuota,
		"the accounts' quota of `CHARACTERS` in a role's trust document, if it was raised",
	)
	flags.IntVar(&o.ProviderQuota, "provider-quota", reconcile.ProviderQuota, "the accounts' quota of OIDC `PROVIDERS`, if it was raised")
}

// registerSyncAlone adds all flags of sync.
func registerSyncAlone(flags *pflag.FlagSet, o *reconcile.Options) {
	registerSync(flags, o)
	keepOldName(flags, "namespace", "system-namespace")
	flags.BoolVar(&o.Once, "once", false, "sync once and end, as in a CronJob")
	flags.BoolVar(&o.DryRun, "dry-run", false, "print the plan and change nothing")
	flags.BoolVar(
		&o.Remove,
		"remove",
		false,
		"delete what this cluster owns in the policy's accounts: its roles and its OIDC provider; needs --yes",
	)
	flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "`HOST:PORT` for /healthz and /readyz")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "`HOST:PORT` for /metrics")
	flags.StringVar(
		&o.StatusAddr,
		"status-addr",
		"",
		"`HOST:PORT` on loopback for a page of what the last pass and audit saw, such as 127.0.0.1:8082; empty: no page",
	)
	flags.StringVar(&o.Image, "image", "", "`IMAGE` of the config sidecar, as the webhook was told it: turns the auditor on")
	flags.BoolVar(
		&o.NoBreaker,
		"no-breaker",
		false,
		"with --image: never pause the injection of a workload whose pods hang on the config sidecar",
	)
	flags.BoolVar(
		&o.NoSidecarStatus,
		"no-sidecar-status",
		false,
		"with --image: do not read the status of config sidecars, at their pods' addresses, for events about sessions and refused writes",
	)
	flags.StringSliceVar(
		&o.Excluded,
		"excluded-namespaces",
		nil,
		"with --image: `NAMESPACES`, by commas, that the webhook's registration excludes",
	)
	flags.DurationVar(
		&o.PullGrace,
		"pull-grace",
		0,
		"with --image: how long a node may take to pull that image before the injection of the workload pauses (default 1m0s)",
	)
	flags.BoolVar(&o.Yes, "yes", false, "with --remove: really delete")
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
		return usage.Errorf("no policy: name its file with --policy")
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
		return usage.Errorf("--status-addr %q is not on loopback: write 127.0.0.1:8082, and reach it by kubectl port-forward", o.StatusAddr)
	case o.DryRun:
		return usage.Errorf("--dry-run is for --once and --remove; or see ampbridge plan")
	case o.AllowShrink:
		return usage.Errorf("--allow-shrink is for --once: it is meant for one run, not for all that follow; run it beside the controller")
	case o.NoBreaker && o.Image == "":
		return usage.Errorf("--no-breaker is for --image: without it there is no auditor")
	case o.NoSidecarStatus && o.Image == "":
		return usage.Errorf("--no-sidecar-status is for --image: without it there is no auditor")
	case len(o.Excluded) > 0 && o.Image == "":
		return usage.Errorf("--excluded-namespaces is for --image: without it there is no auditor")
	case o.PullGrace != 0 && (o.Image == "" || o.PullGrace < time.Second):
		return usage.Errorf("--pull-grace is for --image, and 1s or more")
	case o.Policy == policyfile.Stdin:
		return usage.Errorf("--policy - is for --once: without it the file is read again and again")
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
	return usage.OneOf("output", o.Output, reconcile.Text, reconcile.JSON)
}

// syncControls reports whether sync runs as a controller, until it is stopped.
func syncControls(o reconcile.Options) bool { return !o.Once && !o.Remove }
