package cli

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/publish"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
)

func registerPublish(flags *pflag.FlagSet, o *publish.Options) {
	flags.StringVar(&o.To, "to", "", "where to publish: `s3://BUCKET/PREFIX`, or a directory")
	registerKube(flags, &o.Kubeconfig, &o.Overrides)
	registerOutput(flags, &o.Output)
	flags.StringVar(&o.Discovery, "discovery", "", "`FILE` with the discovery document, instead of asking the API server; needs --keys")
	flags.StringVar(&o.Keys, "keys", "", "`FILE` with the key set (JWKS), instead of asking the API server")
	flags.StringVar(&o.Issuer, "issuer", "", "`URL` that the issuer must have, byte for byte")
	flags.BoolVar(
		&o.Ahead,
		"ahead",
		false,
		"publish for --issuer although the API server still names another: the API server gets it next",
	)
	flags.DurationVar(
		&o.Retain,
		"retain",
		publish.DefaultRetain,
		"`DURATION` for which a key stays published after the cluster stops using it: longer than any token is valid",
	)
	flags.BoolVar(&o.Prune, "prune", false, "remove keys that the cluster has not used for longer than --retain")
	flags.BoolVar(&o.DryRun, "dry-run", false, "show what would be published and write nothing")
	flags.StringVar(&o.Region, "region", "", "the bucket's `REGION`, if neither the issuer's host nor AWS_REGION names it")
}

func validatePublish(o publish.Options) error {
	switch {
	case o.To == "":
		return missing("to", "s3://my-issuer/dev")
	case o.Keys == "" && o.Discovery != "":
		return usage.Errorf("--discovery needs --keys: the discovery document has no keys in it")
	case o.Keys != "" && o.Discovery == "" && o.Issuer == "":
		return usage.Errorf("--keys needs --discovery or --issuer: keys do not name their issuer")
	case o.Ahead && o.Issuer == "":
		return usage.Errorf("--ahead needs --issuer: name the issuer that the API server gets next")
	case o.Retain < publish.MinRetain:
		return usage.Errorf("--retain %s is shorter than tokens are valid: write %s or more", o.Retain, publish.MinRetain)
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
		Use:   "publish --to s3://BUCKET/PREFIX|DIRECTORY",
		Short: "Publish the issuer's discovery document and public keys",
		Long: `Publish is for clusters with an API server that AWS cannot reach. It reads the issuer's
discovery document and its public keys from the API server, or from files, and writes
them to a place that AWS can read. First it shows what it will write.

Old keys stay beside new ones, so that no token breaks during the rotation of a signing
key. Run it before and after each step of the rotation. --prune removes keys that the
cluster has not used for longer than --retain. Publish writes public keys only, and never
changes the place of another issuer.`,
		Example: `  # Into a bucket where these objects are public.
  ampbridge issuer publish --to s3://my-issuer/dev

  # From files into a directory that another program serves.
  ampbridge issuer publish --to ./public --discovery openid-configuration --keys jwks.json`,
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
