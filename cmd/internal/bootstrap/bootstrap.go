// Package bootstrap is the command `ampbridge bootstrap`: the one-time, central
// part of an AWS account, shown, written as Terraform or as AWS CLI commands, or
// applied. What that part is, is decided by policy/bootstrap.
package bootstrap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/terraform"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
)

// Output formats.
const (
	text          = "text"
	terraformText = "terraform"
	awsCLI        = "aws-cli"
	// noEarlier is the value of --earlier for the first time.
	noEarlier = "none"
)

type options struct {
	policy, kubeconfig        string
	account, home             string
	namespace, serviceAccount string
	aliases, tags             []string
	existingProvider          bool
	output                    string
	apply, yes                bool
	writePolicy               string
	// file takes the Terraform configuration; earlier is what was written before.
	file, earlier string
}

func (o *options) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.policy, "policy", "", "the policy `FILE`; - is standard input")
	kube.RegisterFlag(flags, &o.kubeconfig)
	flags.StringVar(&o.account, "account", "", "the AWS account to work on, by its `ID`, where the policy has several")
	flags.StringVar(&o.home, "home", "", "the account whose role sync gets with its own token, by its `ID`, where trust.accounts does not tell")
	flags.StringVar(&o.namespace, "namespace", "ampbridge-system", "ampbridge's own `NAMESPACE`")
	flags.StringVar(&o.serviceAccount, "sync-service-account", "ampbridge-sync", "the `NAME` of sync's service account")
	flags.StringArrayVar(&o.aliases, "alias", nil, "the alias of a new workspace, as `DESTINATION=ALIAS`; by default the destination's name; may be repeated")
	flags.StringArrayVar(&o.tags, "tag", nil, "a tag for everything that is made, as `KEY=VALUE`; may be repeated")
	flags.BoolVar(&o.existingProvider, "existing-provider", false, "with -o terraform and aws-cli: the cluster's OIDC provider is kept elsewhere")
	flags.StringVarP(&o.output, "output", "o", text, "output `FORMAT`: text (what --apply would do), terraform or aws-cli")
	flags.StringVar(&o.file, "file", "", "with -o terraform: write to `FILE`; no workspace that it declares already leaves Terraform")
	flags.StringVar(&o.earlier, "earlier", "", "with -o terraform and standard output: the `FILE` that was written before, or "+noEarlier+" the first time")
	flags.BoolVar(&o.apply, "apply", false, "show the changes, ask, and make them")
	flags.BoolVar(&o.yes, "yes", false, "with --apply: do not ask")
	flags.StringVar(&o.writePolicy, "write-policy", "", "with --apply: write the policy with the ARNs of the new workspaces to `FILE`")
}

func (o *options) validate() error {
	switch {
	case o.policy == "":
		return usage.Errorf("no policy: name its file with --policy")
	case o.apply && o.output != text:
		return usage.Errorf("--apply and -o %s exclude each other", o.output)
	case o.yes && !o.apply:
		return usage.Errorf("--yes is for --apply")
	case o.writePolicy != "" && !o.apply:
		return usage.Errorf("--write-policy is for --apply: before it there are no ARNs")
	case o.apply && !o.yes && o.policy == policyfile.Stdin:
		return usage.Errorf("--policy - leaves nobody to ask: add --yes")
	case (o.file != "" || o.earlier != "") && o.output != terraformText:
		return usage.Errorf("--file and --earlier are for -o terraform")
	case o.file != "" && o.earlier != "":
		return usage.Errorf("--file and --earlier exclude each other: --file reads the file that it writes")
	case o.output == terraformText && o.file == "" && o.earlier == "":
		return usage.Errorf("-o terraform: Terraform would delete a workspace that leaves the configuration, so the earlier one is needed: write with --file bootstrap.tf, which reads the file first; "+
			"for standard output name the earlier file with --earlier FILE, or write --earlier %s the first time", noEarlier)
	case o.existingProvider && o.output == text:
		return usage.Errorf("--existing-provider is for -o terraform and -o aws-cli: AWS is asked otherwise")
	}
	return usage.OneOf("output", o.output, text, terraformText, awsCLI)
}

// New is the command.
func New() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "bootstrap --policy FILE",
		Short: "Prepare an AWS account, once: workspaces, provider, boundary, sync's role",
		Long: `Bootstrap makes what must be in an AWS account before sync can work: new
workspaces, the cluster's OIDC provider, the permissions boundary, and the role
that sync acts as, with the permissions that it needs and no others. Without
--apply it looks at the account and shows what is missing. With -o terraform and
-o aws-cli it writes the same for others to apply, and does not look at AWS.

A destination gets a new workspace where the policy has workspace/ws-new in its
ARN. What others made is never changed, a second run changes nothing, and one
that was cut off is completed by the next.

It works on one account at a time, with credentials of that account; the one
in which sync begins comes first.`,
		Example: `  # See what is missing; then make it, and have the new workspace's ARN in the policy.
  ampbridge bootstrap --policy policy.yaml
  ampbridge bootstrap --policy policy.yaml --apply --write-policy policy.yaml

  # For others to apply.
  ampbridge bootstrap --policy policy.yaml -o terraform --file bootstrap.tf
  ampbridge bootstrap --policy policy.yaml -o aws-cli > bootstrap.sh`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	cmd.AddCommand(newPolicy())
	return cmd
}

func (o *options) run(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	data, err := policyfile.Read(o.policy, stdin)
	if err != nil {
		return err
	}
	p, err := policyfile.ParseDraft(o.policy, data)
	if err != nil {
		return err
	}
	in, err := o.input(ctx, p)
	if err != nil {
		return err
	}
	central, err := bootstrap.Desired(in)
	if err != nil {
		return err
	}
	switch o.output {
	case terraformText:
		return o.terraform(central, stdout)
	case awsCLI:
		_, err = io.WriteString(stdout, bootstrap.Script(central, o.existingProvider))
		return err
	}
	r := newRun(in, central, stdin, stdout)
	if err := r.show(ctx); err != nil || !o.apply {
		return err
	}
	if err := r.apply(ctx, o.yes); err != nil {
		return err
	}
	if err := r.tell(ctx); err != nil || o.writePolicy == "" {
		return err
	}
	return write(o.writePolicy, data, r.made)
}

// input is all that the central part depends on, from flags, policy and cluster.
// terraform writes the configuration, in which every workspace of the earlier one
// stays.
func (o *options) terraform(c bootstrap.Central, stdout io.Writer) error {
	name := cmp.Or(o.file, o.earlier)
	var before []byte
	if o.earlier != noEarlier {
		var err error
		before, err = os.ReadFile(name)
		if err != nil && (o.file == "" || !errors.Is(err, os.ErrNotExist)) {
			return fmt.Errorf("cannot read the earlier configuration: %w", err)
		}
	}
	earlier, err := terraform.ReadEarlier(name, before)
	if err != nil {
		return err
	}
	configuration, err := terraform.Central(c, o.existingProvider, earlier)
	if err != nil {
		return err
	}
	if o.file == "" {
		_, err := stdout.Write(configuration)
		return err
	}
	return replace(o.file, configuration)
}

// replace writes a file in one step: what is cut off leaves the old one as it was.
func replace(path string, data []byte) error {
	// A symbolic link stays, and what it names is replaced.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	mode := os.FileMode(0o644)
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	next, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return err
	}
	_, err = next.Write(data)
	if err = errors.Join(err, next.Chmod(mode), next.Sync(), next.Close()); err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next.Name()))
	}
	return nil
}

func (o *options) input(ctx context.Context, p *policy.Policy) (in bootstrap.Input, err error) {
	in = bootstrap.Input{Policy: p, Issuer: p.Cluster.Issuer, Account: o.account, Home: o.home}
	if in.Sync, err = policy.ParseSubject(policy.Subject{Namespace: o.namespace, ServiceAccount: o.serviceAccount}.String()); err != nil {
		return in, usage.Errorf("--namespace %q and --sync-service-account %q name no service account", o.namespace, o.serviceAccount)
	}
	accounts := bootstrap.Accounts(p)
	switch {
	case in.Account == "" && len(accounts) > 1:
		return in, usage.Errorf("the policy has the accounts %s, and bootstrap works on one: name it with --account", strings.Join(accounts, ", "))
	case in.Account == "":
		in.Account = accounts[0]
	case !slices.Contains(accounts, in.Account):
		return in, usage.Errorf("--account %s: the policy has %s", in.Account, strings.Join(accounts, ", "))
	}
	if in.Aliases, err = pairs("alias", o.aliases); err != nil {
		return in, err
	}
	if in.Tags, err = pairs("tag", o.tags); err != nil {
		return in, err
	}
	if in.Issuer == "" {
		if in.Issuer, err = clusterIssuer(ctx, o.kubeconfig); err != nil {
			return in, fmt.Errorf("%w; or write cluster.issuer into the policy", err)
		}
	}
	return in, nil
}

// clusterIssuer returns the issuer of the cluster that the kubeconfig names.
func clusterIssuer(ctx context.Context, kubeconfig string) (policy.Issuer, error) {
	cluster, err := kube.Connect(kubeconfig)
	if err != nil {
		return "", err
	}
	return cluster.Issuer(ctx, "")
}

func pairs(flag string, list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, text := range list {
		name, value, found := strings.Cut(text, "=")
		if _, twice := m[name]; !found || name == "" || twice {
			return nil, usage.Errorf("--%s %q: write NAME=VALUE, each name once", flag, text)
		}
		m[name] = value
	}
	return m, nil
}

// write puts the ARNs of new workspaces into the text of a policy, and leaves
// everything else in it as it is, comments too.
func write(path string, data []byte, made map[string]policy.Workspace) error {
	placeholders := []string{}
	for p := range made {
		placeholders = append(placeholders, p)
	}
	// ws-new is the beginning of ws-new-1.
	slices.SortFunc(placeholders, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, p := range placeholders {
		data = bytes.ReplaceAll(data, []byte(p), []byte(made[p].String()))
	}
	if _, err := policy.ParseDraft(data); err != nil {
		return errors.Join(errors.New("the policy with the new ARNs in it would not be one, so it was not written"), err)
	}
	return os.WriteFile(path, data, 0o600)
}
