// Package webhook is the command `ampbridge webhook`: the admission webhook as a
// process.
package webhook

import (
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kubeconfig"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/webhook"
)

// options are the command's flags.
type options struct {
	webhook.Options
	kubeconfig string
	logFormat  string
	logLevel   string
}

func (o *options) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.PolicyFile, "policy", "", "the policy `FILE`; a new version is taken up at once, a bad one is reported and the last good one kept")
	flags.StringVar(&o.CertDir, "cert-dir", "", "`DIRECTORY` with tls.crt and tls.key; it may be filled later, and renewed")
	flags.StringVar(&o.Image, "image", "", "`IMAGE` of the config sidecar, for policies that name none; best the webhook's own, by digest")
	flags.StringVar(&o.Addr, "addr", ":9443", "`HOST:PORT` on which the API server calls, over TLS")
	flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "`HOST:PORT` for /healthz and /readyz")
	flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "`HOST:PORT` for /metrics")
	flags.StringVar(&o.Namespace, "namespace", "", "ampbridge's own `NAMESPACE`, where the auditor keeps the circuit breaker; without it there is none")
	flags.DurationVar(&o.DrainDelay, "drain-delay", 5*time.Second, "how long to go on serving after the signal to end, until every API server knows")
	flags.StringVar(&o.logFormat, "log-format", "json", "`FORMAT` of the log on stderr: json or text")
	flags.StringVar(&o.logLevel, "log-level", "info", "`LEVEL` of the log: debug, info, warn or error")
	kubeconfig.Register(flags, &o.kubeconfig)
}

func (o *options) validate() error {
	for _, f := range []struct{ flag, value string }{{"policy", o.PolicyFile}, {"cert-dir", o.CertDir}, {"image", o.Image}} {
		if f.value == "" {
			return usage.Errorf("--%s is missing", f.flag)
		}
	}
	if o.DrainDelay < 0 {
		return usage.Errorf("--drain-delay %s is negative", o.DrainDelay)
	}
	if err := usage.OneOf("log-format", o.logFormat, "json", "text"); err != nil {
		return err
	}
	return usage.OneOf("log-level", o.logLevel, "debug", "info", "warn", "error")
}

// New is the command.
func New() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "webhook --policy FILE --cert-dir DIRECTORY --image IMAGE",
		Short: "Serve the admission webhook",
		Long: `Webhook answers the API server about pods and service accounts of namespaces with
the label ampbridge.io/injection. It is ready once it has a good policy and a
certificate, and ends on SIGTERM when the last request is answered.`,
		Example: `  # In a cluster the chart runs it. On a workstation, against the current context:
  ampbridge webhook --policy policy.yaml --cert-dir certs --image ampbridge:dev --log-format text`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			var err error
			if o.Logger, err = o.logger(cmd.ErrOrStderr()); err != nil {
				return err
			}
			if o.RESTConfig, err = kubeconfig.Load(o.kubeconfig); err != nil {
				return err
			}
			return webhook.Run(cmd.Context(), o.Options)
		},
	}
	o.register(cmd.Flags())
	return cmd
}

func (o *options) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		return nil, fmt.Errorf("log level: %w", err)
	}
	options := &slog.HandlerOptions{Level: level}
	if o.logFormat == "text" {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}
