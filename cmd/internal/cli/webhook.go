package cli

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// webhookOptions are the flags of `ampbridge webhook`.
type webhookOptions struct {
	webhook.Options
	kubeconfig string
	overrides  kube.Overrides
	logFormat  string
	logLevel   string
}

func (o *webhookOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.PolicyFile, "policy", "",
		"policy `FILE`; a new version is used at once; a bad one is reported, and the last good one stays in use")
	flags.StringVar(&o.Image, "image", "",
		"`IMAGE` of the config sidecar, for policies that name none: best the image of the webhook, by digest")
	flags.StringVar(&o.Namespace, "system-namespace", "",
		"`NAMESPACE` in which ampbridge is installed: of the circuit breaker's state (without it there is no breaker), "+
			"and of the webhook's Service and Secret")
	keepOldName(flags, "namespace")
	flags.DurationVar(&o.DrainDelay, "drain-delay", 5*time.Second,
		"`DURATION` to serve after SIGTERM, until every API server has stopped calling")
	registerLog(flags, &o.logFormat, &o.logLevel)
	grouped(flags, "Flags for the webhook's certificate", func(flags *pflag.FlagSet) {
		flags.StringVar(&o.CertDir, "cert-dir", "",
			"`DIRECTORY` with tls.crt and tls.key, from cert-manager or made by you; the files may appear later and be renewed")
		flags.StringVar(&o.CertSecret, "cert-secret", "",
			"instead of --cert-dir: `NAME` of the Secret in --system-namespace in which the webhook keeps the certificates "+
				"that it makes and rotates itself")
		flags.StringVar(&o.Service, "service", "",
			"with --cert-secret: `NAME` of the Service in --system-namespace that the API server calls")
		flags.StringVar(&o.WebhookConfiguration, "webhook-configuration", "",
			"with --cert-secret: `NAME` of the MutatingWebhookConfiguration that gets the CA bundle (default \""+
				registration.DefaultName+"\")")
	})
	grouped(flags, "Flags for addresses and clients", func(flags *pflag.FlagSet) {
		flags.StringVar(&o.Addr, "addr", ":9443", "`HOST:PORT` on which the API server calls, over TLS")
		flags.StringVar(&o.HealthAddr, "health-addr", ":8081", "`HOST:PORT` for /healthz and /readyz")
		flags.StringVar(&o.MetricsAddr, "metrics-addr", ":8080", "`HOST:PORT` for /metrics")
		flags.StringVar(&o.ClientCA, "client-ca", "",
			"`FILE` with the CA, PEM, that signs the API servers' client certificate: the webhook answers no other client; "+
				"a new version is used at once")
		flags.StringSliceVar(&o.ClientNames, "client-name", nil,
			"with --client-ca: common or DNS `NAMES`, separated by commas, that the client certificate may have (default any)")
	})
	registerKube(flags, &o.kubeconfig, &o.overrides)
}

func (o *webhookOptions) validate() error {
	for _, f := range []struct{ flag, value, example string }{
		{"policy", o.PolicyFile, examplePolicy}, {"image", o.Image, publishedImage()},
	} {
		if f.value == "" {
			return missing(f.flag, f.example)
		}
	}
	if err := o.validateCertificate(); err != nil {
		return err
	}
	if o.DrainDelay < 0 {
		return usage.Errorf("--drain-delay %s is negative", o.DrainDelay)
	}
	if len(o.ClientNames) > 0 && o.ClientCA == "" {
		return usage.Errorf("--client-name is for --client-ca: name the file of the CA that signs the client certificate")
	}
	return nil
}

// validateCertificate checks that the flags name exactly one of the two sources of a
// certificate.
func (o *webhookOptions) validateCertificate() error {
	switch {
	case o.CertDir == "" && o.CertSecret == "":
		return usage.Errorf(
			"--cert-dir is missing, or --cert-secret with --service: the first for certificates that something else renews, the second " +
				"for certificates of the webhook itself",
		)
	case o.CertDir != "" && o.CertSecret != "":
		return usage.Errorf("--cert-dir and --cert-secret exclude each other: drop one")
	}
	for _, f := range []struct{ flag, value string }{{"service", o.Service}, {"webhook-configuration", o.WebhookConfiguration}} {
		if o.CertDir != "" && f.value != "" {
			return usage.Errorf("--%s belongs to --cert-secret: drop it, or --cert-dir", f.flag)
		}
	}
	for _, f := range []struct{ flag, value string }{{"service", o.Service}, {"system-namespace", o.Namespace}} {
		if o.CertSecret != "" && f.value == "" {
			return usage.Errorf("--%s is missing: --cert-secret needs it", f.flag)
		}
	}
	return nil
}

// newWebhook returns `ampbridge webhook`, which serves the admission webhook.
func newWebhook() *cobra.Command {
	var o webhookOptions
	cmd := &cobra.Command{
		Use:   "webhook --policy FILE --image IMAGE (--cert-secret NAME | --cert-dir DIRECTORY)",
		Short: "Serve the admission webhook",
		Long: `Webhook answers the API server about pods and service accounts in namespaces with the
label ampbridge.io/injection. It is ready once it has a good policy and a certificate that
the API server trusts. On SIGTERM it answers the last requests and ends.

The certificate comes from one of two sources. With --cert-secret the webhook makes, shares
and rotates it, and keeps the CA bundle of the MutatingWebhookConfiguration up to date.
With --cert-dir another program does both.`,
		Example: `  # In a cluster, as the chart runs it.
  ampbridge webhook --policy policy.yaml --image IMAGE --system-namespace ampbridge-system \
    --cert-secret ampbridge-webhook-tls --service ampbridge-webhook

  # On a workstation, with the current context.
  ampbridge webhook --policy policy.yaml --cert-dir certs --image ampbridge:dev --log-format text`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			var err error
			if o.Logger, err = newLogger(cmd.ErrOrStderr(), o.logFormat, o.logLevel); err != nil {
				return err
			}
			limitMemory(o.Logger)
			if o.RESTConfig, err = kube.Config(o.kubeconfig, o.overrides); err != nil {
				return err
			}
			return webhook.Run(cmd.Context(), o.Options)
		},
	}
	o.register(cmd.Flags())
	return cmd
}
