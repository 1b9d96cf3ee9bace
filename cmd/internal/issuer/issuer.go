// Package issuer is the command `ampbridge issuer`: it publishes the discovery
// document and the public keys of a cluster whose API server AWS cannot reach.
// What is published is decided by cmd/internal/publish.
package issuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/publish"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
)

const (
	// defaultKeep outlasts the longest token that the policy lets a sidecar have,
	// a day, and what verifiers remember of a key set.
	defaultKeep = 48 * time.Hour
	minKeep     = time.Hour
	// attempts is how often it begins anew where somebody else publishes at the
	// same moment.
	attempts = 5
)

// Options are the flags of `ampbridge issuer publish`.
type Options struct {
	// To is s3://bucket/prefix or a folder.
	To         string
	Kubeconfig string
	// Keys and Discovery are files to read instead of asking the API server.
	Keys, Discovery string
	// Issuer is expected; with Ahead it is not the API server's yet.
	Issuer string
	Ahead  bool
	Keep   time.Duration
	Prune  bool
	DryRun bool
	// Region is the bucket's; empty: that of the issuer's host, or the SDK's.
	Region string
	// Now is the clock; nil: the system's.
	Now func() time.Time
}

func (o *Options) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.To, "to", "", "where to publish: `s3://BUCKET/PREFIX`, or a folder")
	kube.RegisterFlag(flags, &o.Kubeconfig)
	flags.StringVar(&o.Discovery, "discovery", "", "`FILE` with the discovery document, instead of asking the API server; needs --keys")
	flags.StringVar(&o.Keys, "keys", "", "`FILE` with the key set (JWKS), instead of asking the API server")
	flags.StringVar(&o.Issuer, "issuer", "", "the `URL` that the issuer must be, byte for byte")
	flags.BoolVar(&o.Ahead, "ahead", false, "publish for --issuer though the API server still names another: it is to be switched over next")
	flags.DurationVar(&o.Keep, "keep", defaultKeep, "how long a key stays that is gone from the cluster: longer than any token lives")
	flags.BoolVar(&o.Prune, "prune", false, "take away keys that are gone from the cluster for longer than --keep")
	flags.BoolVar(&o.DryRun, "dry-run", false, "show what would be published and write nothing")
	flags.StringVar(&o.Region, "region", "", "the bucket's `REGION`, where neither the issuer's host nor AWS_REGION says it")
}

func (o *Options) validate() error {
	switch {
	case o.To == "":
		return usage.Errorf("no place to publish: name it with --to, s3://BUCKET/PREFIX or a folder")
	case o.Keys == "" && o.Discovery != "":
		return usage.Errorf("--discovery needs --keys: the discovery document has no keys in it")
	case o.Keys != "" && o.Discovery == "" && o.Issuer == "":
		return usage.Errorf("--keys needs --discovery or --issuer: keys do not say whose they are")
	case o.Ahead && o.Issuer == "":
		return usage.Errorf("--ahead needs --issuer: the one that the API server is to be switched to")
	case o.Keep < minKeep:
		return usage.Errorf("--keep %s is shorter than tokens live: write %s or more", o.Keep, minKeep)
	}
	return nil
}

// New is the command.
func New() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "issuer",
		Short:   "Publish what AWS needs to verify a cluster's tokens",
		Example: "  ampbridge issuer publish --to s3://my-issuer/dev",
	}
	var o Options
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
			if err := o.validate(); err != nil {
				return err
			}
			return Publish(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	o.register(publishCommand.Flags())
	cmd.AddCommand(publishCommand)
	return cmd
}

// Publish shows what is to be published, and writes it.
func Publish(ctx context.Context, o Options, stdout io.Writer) error {
	source, err := o.source(ctx)
	if err != nil {
		return err
	}
	who, err := o.issuer(source.discovery)
	if err != nil {
		return err
	}
	place, err := o.place(ctx, who)
	if err != nil {
		return err
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	for attempt := 1; ; attempt++ {
		in := publish.Input{Issuer: who, Current: source.keys, Keep: o.Keep, Prune: o.Prune, Now: now()}
		err := publishOnce(ctx, place, in, o.DryRun, stdout)
		if !errors.Is(err, errChanged) || attempt == attempts {
			return err
		}
		if _, err := fmt.Fprintf(stdout, "%s was written by somebody else meanwhile: once more\n", place); err != nil {
			return err
		}
	}
}

// issuer is whom to publish for: the cluster's, and the one that is expected.
func (o *Options) issuer(found policy.Issuer) (policy.Issuer, error) {
	expected := policy.Issuer(o.Issuer)
	if expected != "" {
		if err := expected.Validate(); err != nil {
			return "", usage.Errorf("--issuer: %v", err)
		}
	}
	who := expected
	switch {
	case expected == "":
		who = found
	case found != "" && found != expected && !o.Ahead:
		return "", fmt.Errorf("the cluster's issuer is %s, --issuer is %s: they must be the same byte for byte; if the API server is to be switched to it next, add --ahead", found, expected)
	}
	if host, _, _ := strings.Cut(who.Host(), "/"); private(host) {
		return "", fmt.Errorf("the issuer %s is a name that AWS cannot look up, wherever its keys are: give the API server one that it can (--service-account-issuer), and publish ahead of that with --issuer and --ahead", who)
	}
	return who, nil
}

// private are hosts that mean something within a cluster or a network alone.
func private(host string) bool {
	return net.ParseIP(host) != nil || !strings.Contains(host, ".") || strings.HasSuffix(host, ".local") || strings.HasSuffix(host, ".svc") || strings.HasSuffix(host, ".internal")
}

// publishOnce makes one attempt. [errChanged] asks for another.
func publishOnce(ctx context.Context, place place, in publish.Input, dryRun bool, stdout io.Writer) error {
	old, err := look(ctx, place)
	if err != nil {
		return err
	}
	if old.discovery.data != nil {
		found, err := publish.ParseDiscovery(old.discovery.data)
		if err != nil {
			return fmt.Errorf("%s: %s: %w; nothing was written", place, publish.DiscoveryPath, err)
		}
		if err := publish.CheckPlace(found, in.Issuer); err != nil {
			return fmt.Errorf("%s: %w", place, err)
		}
	}
	if old.keys.data != nil {
		if in.Published, err = publish.ParseKeys(old.keys.data); err != nil {
			return fmt.Errorf("%s: %s: %w; nothing was written", place, publish.KeysPath, err)
		}
	}
	if old.memory.data != nil {
		if in.Memory, err = publish.ParseMemory(old.memory.data); err != nil {
			return fmt.Errorf("%s: %s: %w; delete it: keys then stay for another %s", place, publish.MemoryPath, err, in.Keep)
		}
	}
	p, err := publish.Publish(in)
	if err != nil {
		return fmt.Errorf("%s: %w; nothing was written", place, err)
	}
	if _, err := io.WriteString(stdout, p.Text(in)); err != nil {
		return err
	}
	if dryRun {
		_, err := fmt.Fprintln(stdout, "dry run: nothing was written")
		return err
	}
	// Keys before the document that points to them. The memory comes last: without
	// it keys stay longer, never shorter.
	written := 0
	for _, f := range []struct {
		name        string
		old         object
		text        []byte
		contentType string
		public      bool
	}{
		{publish.KeysPath, old.keys, publish.Encode(p.Keys), "application/jwk-set+json", true},
		{publish.DiscoveryPath, old.discovery, p.Discovery.Encode(), "application/json", true},
		{publish.MemoryPath, old.memory, p.Memory.Encode(), "application/json", false},
	} {
		if string(f.old.data) == string(f.text) {
			continue
		}
		if err := place.write(ctx, f.name, f.old, content{f.text, f.contentType, f.public}); err != nil {
			return fmt.Errorf("%s: %s: %w", place, f.name, err)
		}
		written++
		if _, err := fmt.Fprintf(stdout, "wrote %s/%s\n", place, f.name); err != nil {
			return err
		}
	}
	if written == 0 {
		_, err := fmt.Fprintf(stdout, "%s: up to date\n", place)
		return err
	}
	return nil
}

// standing is what a place holds.
type standing struct{ keys, discovery, memory object }

func look(ctx context.Context, place place) (s standing, err error) {
	for name, into := range map[string]*object{publish.KeysPath: &s.keys, publish.DiscoveryPath: &s.discovery, publish.MemoryPath: &s.memory} {
		if *into, err = place.read(ctx, name); err != nil {
			return s, fmt.Errorf("%s: %s: %w", place, name, err)
		}
	}
	return s, nil
}
