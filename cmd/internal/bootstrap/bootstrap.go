// Package bootstrap shows the central part of an AWS account, which is set up once. It writes
// that part as Terraform or AWS CLI commands, or applies it. Package policy/bootstrap computes it.
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

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/terraform"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// Output formats.
const (
	Text      = output.Text
	JSON      = output.JSON
	YAML      = output.YAML
	Terraform = "terraform"
	AWSCLI    = "aws-cli"
)

// NoEarlier is the value of [Options.Earlier] on the first run.
const NoEarlier = "none"

// Options configures [Run].
type Options struct {
	Policy, Kubeconfig string
	Overrides          kube.Overrides
	// Account is the account to prepare; if empty, the only one of the policy. Home is the
	// account in which sync assumes a role with its own token.
	Account, Home string
	// Namespace and ServiceAccount identify sync's service account.
	Namespace, ServiceAccount string
	// Aliases are DESTINATION=ALIAS, Tags KEY=VALUE.
	Aliases, Tags []string
	// Adopt names the destinations with workspaces that the cluster takes over.
	Adopt []string
	// ExistingProvider and ExistingBoundary mean that the cluster's OIDC provider or the
	// permissions boundary is managed elsewhere.
	ExistingProvider, ExistingBoundary bool
	Output                             string
	// Apply makes the changes after a confirmation; Yes confirms them.
	Apply, Yes bool
	// WritePolicy is the file that gets the policy with the ARNs of new workspaces.
	WritePolicy string
	// Import writes import blocks for what exists, and reads AWS for that.
	Import bool
	// PodIdentity lets EKS Pod Identity give sync its role. PruneTrust removes statements
	// that others added to the role's trust document.
	PodIdentity, PruneTrust bool
	// WorkspaceQuota is the number of workspaces that the account may have in a region.
	WorkspaceQuota int
	// File is where the Terraform configuration is written. Earlier is the one of the last run.
	File, Earlier string
}

// AsksAWS reports whether the output depends on what the account has. The other outputs are
// made of the policy alone.
func (o *Options) AsksAWS() bool { return o.Output != Terraform && o.Output != AWSCLI }

// Run prepares the account, or shows what is needed.
func Run(ctx context.Context, o Options, stdin io.Reader, stdout io.Writer) error {
	data, err := policyfile.Read(o.Policy, stdin)
	if err != nil {
		return err
	}
	p, err := policyfile.ParseDraft(o.Policy, data)
	if err != nil {
		return err
	}
	in, err := o.input(ctx, p)
	if err != nil {
		return err
	}
	var earlier terraform.Earlier
	if o.Output == Terraform {
		if earlier, err = o.readEarlier(); err != nil {
			return err
		}
		// Terraform sets exactly what its configuration contains, so an earlier statement must stay in it.
		in.PodIdentity = in.PodIdentity || (earlier.PodIdentity && !o.PruneTrust)
	}
	central, err := bootstrap.Desired(in)
	if err != nil {
		return err
	}
	if !o.AsksAWS() {
		if o.ExistingBoundary {
			central.Boundary = policy.ARN{}
		}
		if err := central.CheckLimits(); err != nil {
			return err
		}
	}
	switch o.Output {
	case Terraform:
		var found *bootstrap.Found
		if o.Import {
			a := newAccountRun(in, central, stdin, stdout)
			if err := a.observe(ctx); err != nil {
				return err
			}
			found = &a.found
		}
		return o.writeTerraform(central, earlier, found, stdout)
	case AWSCLI:
		_, err = io.WriteString(stdout, bootstrap.Script(central, o.ExistingProvider))
		return err
	}
	a := newAccountRun(in, central, stdin, stdout)
	if err := a.show(ctx, o.Output); err != nil || !o.Apply {
		return err
	}
	if err := a.apply(ctx, o.Yes); err != nil {
		return err
	}
	if err := a.printResult(ctx); err != nil || o.WritePolicy == "" {
		return err
	}
	return writePolicy(o.WritePolicy, data, a.created)
}

// readEarlier reads the configuration of the last run.
func (o *Options) readEarlier() (terraform.Earlier, error) {
	name := cmp.Or(o.File, o.Earlier)
	var before []byte
	if o.Earlier != NoEarlier {
		var err error
		before, err = os.ReadFile(name)
		if err != nil && (o.File == "" || !errors.Is(err, os.ErrNotExist)) {
			return terraform.Earlier{}, fmt.Errorf("cannot read the earlier configuration: %w", err)
		}
	}
	return terraform.ReadEarlier(name, before)
}

// writeTerraform writes the configuration. It keeps every workspace of the earlier one.
func (o *Options) writeTerraform(c bootstrap.Central, earlier terraform.Earlier, found *bootstrap.Found, stdout io.Writer) error {
	configuration, err := terraform.Central(c, o.ExistingProvider, earlier, found)
	if err != nil {
		return err
	}
	if o.File == "" {
		_, err := stdout.Write(configuration)
		return err
	}
	if err := replaceFile(o.File, configuration); err != nil {
		return err
	}
	if c.Provider.IsZero() && !slices.ContainsFunc(c.Workspaces, func(w bootstrap.Workspace) bool { return w.New }) {
		_, err = fmt.Fprintf(stdout, "bootstrap: %s makes nothing, because trust.manage is none and every workspace of "+
			"account %s exists\n", o.File, c.Account)
	}
	return err
}

// replaceFile replaces a file atomically: if it is interrupted, the old file stays.
func replaceFile(path string, data []byte) error {
	// Keep a symbolic link and replace its target.
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

// input returns everything that the central part depends on, from options, policy and
// cluster.
func (o *Options) input(ctx context.Context, p *policy.Policy) (in bootstrap.Input, err error) {
	in = bootstrap.Input{Policy: p, Issuer: p.Cluster.Issuer, Account: o.Account, Home: o.Home, WorkspaceQuota: o.WorkspaceQuota,
		PodIdentity: o.PodIdentity, PruneTrust: o.PruneTrust}
	if in.Sync, err = policy.ParseSubject(policy.Subject{Namespace: o.Namespace, ServiceAccount: o.ServiceAccount}.String()); err != nil {
		return in, usage.Errorf("--system-namespace %q and --sync-service-account %q are not a valid service account",
			o.Namespace, o.ServiceAccount)
	}
	accounts := bootstrap.Accounts(p)
	switch {
	case in.Account == "" && len(accounts) > 1:
		return in, usage.Errorf(
			"the policy has the accounts %s, and bootstrap prepares one at a time: name it with --account",
			strings.Join(accounts, ", "),
		)
	case in.Account == "":
		in.Account = accounts[0]
	case !slices.Contains(accounts, in.Account):
		return in, usage.Errorf("--account %s: the policy has %s", in.Account, strings.Join(accounts, ", "))
	}
	in.Adopt = o.Adopt
	if in.Aliases, err = parsePairs("alias", o.Aliases); err != nil {
		return in, err
	}
	if in.Tags, err = parsePairs("tag", o.Tags); err != nil {
		return in, err
	}
	if in.Issuer == "" {
		if in.Issuer, err = clusterIssuer(ctx, o); err != nil {
			return in, fmt.Errorf("%w; or write cluster.issuer into the policy", err)
		}
	}
	return in, nil
}

// clusterIssuer returns the issuer of the cluster that the kubeconfig names.
func clusterIssuer(ctx context.Context, o *Options) (policy.Issuer, error) {
	cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
	if err != nil {
		return "", err
	}
	return cluster.Issuer(ctx, "")
}

func parsePairs(flag string, list []string) (map[string]string, error) {
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

// writePolicy writes a policy's text with the ARNs of new workspaces. It keeps
// everything else, including comments.
func writePolicy(path string, data []byte, created map[string]policy.Workspace) error {
	placeholders := []string{}
	for p := range created {
		placeholders = append(placeholders, p)
	}
	// The longest first, because ws-new is the beginning of ws-new-1.
	slices.SortFunc(placeholders, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for _, p := range placeholders {
		data = bytes.ReplaceAll(data, []byte(p), []byte(created[p].String()))
	}
	if _, err := policy.ParseDraft(data); err != nil {
		return errors.Join(errors.New("the policy would not be valid with the new ARNs, so it was not written"), err)
	}
	return os.WriteFile(path, data, 0o600)
}
