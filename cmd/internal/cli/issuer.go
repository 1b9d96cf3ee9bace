package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/publish"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

func registerPublish(flags *pflag.FlagSet, o *publish.Options) {
	flags.StringVar(&o.To, "to", "", "where to publish: `s3://BUCKET/PREFIX`, or a folder")
	kube.RegisterFlag(flags, &o.Kubeconfig)
	flags.StringVar(&o.Discovery, "discovery", "", "`FILE` with the discovery document, instead of asking the API server; needs --keys")
	flags.StringVar(&o.Keys, "keys", "", "`FILE` with the key set (JWKS), instead of asking the API server")
	flags.StringVar(&o.Issuer, "issuer", "", "the `URL` that the issuer must be, byte for byte")
	flags.BoolVar(&o.Ahead, "ahead", false, "publish for --issuer though the API server still names another: it is to be switched over next")
	flags.DurationVar(&o.Keep, "keep", publish.DefaultKeep, "how long a key stays that is gone from the cluster: longer than any token lives")
	flags.BoolVar(&o.Prune, "prune", false, "take away keys that are gone from the cluster for longer than --keep")
	flags.BoolVar(&o.DryRun, "dry-run", false, "show what would be published and write nothing")
	flags.StringVar(&o.Region, "region", "", "the bucket's `REGION`, where neither the issuer's host nor AWS_REGION says it")
}

func validatePublish(o publish.Options) error {
	switch {
	case o.To == "":
		return usage.Errorf("no place to publish: name it with --to, s3://BUCKET/PREFIX or a folder")
	case o.Keys == "" && o.Discovery != "":
		return usage.Errorf("--discovery needs --keys: the discovery document has no keys in it")
	case o.Keys != "" && o.Discovery == "" && o.Issuer == "":
		return usage.Errorf("--keys needs --discovery or --issuer: keys do not say whose they are")
	case o.Ahead && o.Issuer == "":
		return usage.Errorf("--ahead needs --issuer: the one that the API server is to be switched to")
	case o.Keep < publish.MinKeep:
		return usage.Errorf("--keep %s is shorter than tokens live: write %s or more", o.Keep, publish.MinKeep)
	}
	return nil
}

// newIssuer returns `ampbridge issuer`, which publishes the discovery document and the
// public keys of a cluster whose API server AWS cannot reach.
func newIssuer() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "issuer",
		Short:   "Publish what AWS needs to verify a cluster's tokens",
		Example: "  ampbridge issuer publish --to s3://my-issuer/dev",
	}
	var o publish.Options
	publishCommand := &cobra.Command{
		Use:   "publish --to s3://BUCKET/PREFIX|FOLDER",
		Short: "Publish discovery document and public keys",
		Long: `Publish is for clusters whose API server the world cannot reach: it takes the
issuer's discovery document and its public keys from the API server, or from
files, and writes them where AWS can read them. It shows what it is going to
write first.

Old keys stay beside new ones, so that no token breaks while a signing key is
rotated; run it again, before and after each step. --prune takes away keys that
are gone from the cluster for longer than --keep. Nothing but public keys is
published, and a place where another issuer stands is left alone.`,
		Example: `  # Into a bucket of which these objects are public.
  ampbridge issuer publish --to s3://my-issuer/dev

  # Into a folder that something else serves, from files.
  ampbridge issuer publish --to ./public --discovery openid-configuration --keys jwks.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := validatePublish(o); err != nil {
				return err
			}
			return publish.Run(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	registerPublish(publishCommand.Flags(), &o)
	cmd.AddCommand(publishCommand)
	return cmd
}
