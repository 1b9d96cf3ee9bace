package terraform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// RolesOptions configures [PrintRoles].
type RolesOptions struct {
	// Policy is the policy's file. Kubeconfig is not used if Subjects or FromGrants
	// name the service accounts.
	Policy, Kubeconfig string
	Overrides          kube.Overrides
	// Account is the AWS account to write for, if the policy has several.
	Account string
	// ExistingProvider means that the cluster's OIDC provider is managed elsewhere.
	ExistingProvider bool
	// Import makes Terraform take over what sync created.
	Import bool
	// Subjects are the service accounts to trust, as NAMESPACE/NAME.
	Subjects []string
	// FromGrants trusts the service accounts that grants name in full.
	FromGrants bool
	TrustQuota int
}

// PrintRoles prints the configuration for the roles of one account. It prints the notes of the
// plan on stderr.
func PrintRoles(ctx context.Context, o RolesOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	in := plan.Input{Policy: p, Issuer: p.Cluster.Issuer, TrustQuota: o.TrustQuota}
	switch {
	case o.FromGrants:
		in.ServiceAccounts, err = grantedSubjects(p)
	case len(o.Subjects) > 0:
		in.ServiceAccounts, err = namedSubjects(p, o.Subjects)
	default:
		in.Issuer, in.ServiceAccounts, err = observe(ctx, o, p.Cluster.Issuer)
	}
	if err != nil {
		return err
	}
	if in.Issuer == "" {
		return errors.New("cluster.issuer is missing, and without a cluster it cannot be read: write it into the policy, " +
			"with its slash if it ends in one; EKS: aws eks describe-cluster --name NAME --query cluster.identity.oidc.issuer; " +
			"AKS: az aks show --name NAME --resource-group GROUP --query oidcIssuerProfile.issuerUrl; " +
			"others: kubectl get --raw /.well-known/openid-configuration")
	}
	desired := Desired(in)
	account, err := o.chooseAccount(Accounts(desired))
	if err != nil {
		return err
	}
	if _, err := stdout.Write(Roles(desired, account, o.ExistingProvider, o.Import)); err != nil {
		return err
	}
	// Notes go to stderr, because the configuration must change only with the policy.
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

// observe returns the issuer and the service accounts of the cluster.
func observe(ctx context.Context, o RolesOptions, expected policy.Issuer) (policy.Issuer, []plan.ServiceAccount, error) {
	cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
	if err != nil {
		return "", nil, err
	}
	return cluster.Observe(ctx, expected)
}

// chooseAccount returns the account in o, or the only one.
func (o *RolesOptions) chooseAccount(accounts []string) (string, error) {
	switch {
	case len(accounts) == 0:
		return "", errors.New(
			"nothing to write: the cluster has no service account that the policy grants; label its namespace, or name " +
				"it with --subject",
		)
	case o.Account == "" && len(accounts) > 1:
		return "", usage.Errorf(
			"the policy has roles in the accounts %s, and a configuration is for one: name one with --account",
			strings.Join(accounts, ", "),
		)
	case o.Account == "":
		return accounts[0], nil
	case !slices.Contains(accounts, o.Account):
		return "", usage.Errorf("--account %s: the policy has roles in %s", o.Account, strings.Join(accounts, ", "))
	}
	return o.Account, nil
}

// namedSubjects returns the service accounts NAMESPACE/NAME as if they existed.
func namedSubjects(p *policy.Policy, subjects []string) ([]plan.ServiceAccount, error) {
	var list []plan.ServiceAccount
	var errs []error
	for _, text := range subjects {
		namespace, name, _ := strings.Cut(text, "/")
		subject, err := policy.ParseSubject(policy.Subject{Namespace: namespace, ServiceAccount: name}.String())
		if err != nil {
			errs = append(errs, usage.Errorf("--subject %q is not a service account: write NAMESPACE/NAME", text))
			continue
		}
		if _, granted := p.Entitled(subject); !granted {
			errs = append(errs, fmt.Errorf("--subject %s: no grant of the policy covers it: add one under grants", text))
			continue
		}
		list = append(list, serviceAccount(subject))
	}
	return list, errors.Join(errs...)
}

// grantedSubjects returns the service accounts that the grants name in full.
func grantedSubjects(p *policy.Policy) ([]plan.ServiceAccount, error) {
	var list []plan.ServiceAccount
	seen := map[policy.Subject]bool{}
	for i, g := range p.Grants {
		for _, namespace := range g.Namespaces {
			for _, name := range g.ServiceAccounts {
				if strings.Contains(string(namespace+name), "*") {
					return nil, fmt.Errorf(
						"grants[%d]: %s/%s is a pattern for service accounts that are not known here: name them with --subject, "+
							"or connect to the cluster",
						i,
						namespace,
						name,
					)
				}
				subject := policy.Subject{Namespace: string(namespace), ServiceAccount: string(name)}
				if !seen[subject] {
					seen[subject] = true
					list = append(list, serviceAccount(subject))
				}
			}
		}
	}
	return list, nil
}

func serviceAccount(s policy.Subject) plan.ServiceAccount {
	return plan.ServiceAccount{Namespace: s.Namespace, Name: s.ServiceAccount, Injection: policy.InjectionEnabled}
}
