package plan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/sync"
	"github.com/ampbridge/ampbridge/cmd/internal/terraform"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// formatTerraform is the value of -o that this command has beyond sync's.
const formatTerraform = "terraform"

// terraformOptions are the flags for -o terraform.
type terraformOptions struct {
	account          string
	existingProvider bool
	subjects         []string
	fromGrants       bool
}

func (t *terraformOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&t.account, "account", "", "with -o terraform: the AWS account to write for, by its `ID`, where the policy has several")
	flags.BoolVar(&t.existingProvider, "existing-provider", false, "with -o terraform: the cluster's OIDC provider is kept elsewhere, such as by bootstrap")
	flags.StringArrayVar(&t.subjects, "subject", nil, "with -o terraform: a service account to trust, as `NAMESPACE/NAME`, instead of those of the cluster; may be repeated")
	flags.BoolVar(&t.fromGrants, "subjects-from-grants", false, "with -o terraform: trust the service accounts that grants name without a *, instead of those of the cluster")
}

// unused says which of the flags were given without -o terraform.
func (t *terraformOptions) unused(flags *pflag.FlagSet) error {
	for _, name := range []string{"account", "existing-provider", "subject", "subjects-from-grants"} {
		if flags.Changed(name) {
			return usage.Errorf("--%s is for -o terraform", name)
		}
	}
	return nil
}

func (t *terraformOptions) validate(o sync.Options) error {
	o.Output = sync.Text
	if t.fromGrants && len(t.subjects) > 0 {
		return usage.Errorf("--subject and --subjects-from-grants exclude each other")
	}
	return o.Validate()
}

func (t *terraformOptions) run(ctx context.Context, o sync.Options, stdin io.Reader, stdout, stderr io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	in := plan.Input{Policy: p, Issuer: p.Cluster.Issuer, TrustQuota: o.TrustQuota}
	switch {
	case t.fromGrants:
		in.ServiceAccounts, err = fromGrants(p)
	case len(t.subjects) > 0:
		in.ServiceAccounts, err = named(p, t.subjects)
	default:
		in.Issuer, in.ServiceAccounts, err = kube.Observe(ctx, o.Kubeconfig, p.Cluster.Issuer)
	}
	if err != nil {
		return err
	}
	if in.Issuer == "" {
		return errors.New("cluster.issuer is missing: without a cluster it cannot be discovered; write it into the policy")
	}
	desired := terraform.Desired(in)
	account, err := t.choose(terraform.Accounts(desired))
	if err != nil {
		return err
	}
	if _, err := stdout.Write(terraform.Roles(desired, account, t.existingProvider)); err != nil {
		return err
	}
	// Beside the configuration, which is to change with the policy alone.
	for _, f := range desired.Notes {
		if f.Account == "" || f.Account == account {
			_, _ = fmt.Fprintf(stderr, "note: %s: %s\n", f.About, f.Message)
		}
	}
	var refusals []error
	for _, f := range desired.Refusals {
		if f.Account == account {
			refusals = append(refusals, fmt.Errorf("refused: %s: %s", f.About, f.Message))
		}
	}
	return errors.Join(refusals...)
}

// choose is the account that was asked for, or the only one.
func (t *terraformOptions) choose(accounts []string) (string, error) {
	switch {
	case len(accounts) == 0:
		return "", errors.New("nothing to write: no service account that the policy grants is there; label its namespace, or name it with --subject")
	case t.account == "" && len(accounts) > 1:
		return "", usage.Errorf("the policy has roles in the accounts %s, and a configuration is for one: name it with --account", strings.Join(accounts, ", "))
	case t.account == "":
		return accounts[0], nil
	case !slices.Contains(accounts, t.account):
		return "", usage.Errorf("--account %s: the policy has roles in %s", t.account, strings.Join(accounts, ", "))
	}
	return t.account, nil
}

// named are the service accounts NAMESPACE/NAME as if they were there.
func named(p *policy.Policy, subjects []string) ([]plan.ServiceAccount, error) {
	var list []plan.ServiceAccount
	var errs []error
	for _, text := range subjects {
		namespace, name, _ := strings.Cut(text, "/")
		subject, err := policy.ParseSubject(policy.Subject{Namespace: namespace, ServiceAccount: name}.String())
		if err != nil {
			errs = append(errs, usage.Errorf("--subject %q is no service account: write NAMESPACE/NAME", text))
			continue
		}
		if _, granted := p.Entitled(subject); !granted {
			errs = append(errs, fmt.Errorf("--subject %s: no grant of the policy covers it: add one under grants", text))
			continue
		}
		list = append(list, present(subject))
	}
	return list, errors.Join(errs...)
}

// fromGrants are the service accounts that the grants name, each of them in full.
func fromGrants(p *policy.Policy) ([]plan.ServiceAccount, error) {
	var list []plan.ServiceAccount
	seen := map[policy.Subject]bool{}
	for i, g := range p.Grants {
		for _, namespace := range g.Namespaces {
			for _, name := range g.ServiceAccounts {
				if strings.Contains(string(namespace+name), "*") {
					return nil, fmt.Errorf("grants[%d]: %s/%s stands for service accounts that are not known here: name them with --subject, or let the cluster be asked", i, namespace, name)
				}
				subject := policy.Subject{Namespace: string(namespace), ServiceAccount: string(name)}
				if !seen[subject] {
					seen[subject] = true
					list = append(list, present(subject))
				}
			}
		}
	}
	return list, nil
}

func present(s policy.Subject) plan.ServiceAccount {
	return plan.ServiceAccount{Namespace: s.Namespace, Name: s.ServiceAccount, Injection: policy.InjectionEnabled}
}
