package awsiam

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Inspector reads parts of one account that a diagnosis needs and a plan does not.
// It changes nothing.
type Inspector struct{ account *account }

// ProviderDetails is an OIDC provider with everything that AWS compares with a token.
type ProviderDetails struct {
	// URL has no https://, because IAM returns it so.
	URL                    string
	Audiences, Thumbprints []string
}

// Inspect prepares to read the target's account. If the credentials belong to another
// account, the error names it.
func (i *IAM) Inspect(ctx context.Context, target plan.Target) (*Inspector, error) {
	a, err := i.open(ctx, target)
	if err != nil {
		return nil, err
	}
	return &Inspector{a}, nil
}

// Provider returns nil if there is no provider.
func (i *Inspector) Provider(ctx context.Context, arn policy.ARN) (*ProviderDetails, error) {
	out, err := i.account.iam.GetOpenIDConnectProvider(
		ctx,
		&iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(arn.String())},
	)
	switch {
	case missing(err):
		return nil, nil
	case err != nil:
		return nil, normalizeError(err)
	}
	return &ProviderDetails{aws.ToString(out.Url), out.ClientIDList, out.ThumbprintList}, nil
}

// Providers returns the ARNs of all OIDC providers of the account.
func (i *Inspector) Providers(ctx context.Context) ([]policy.ARN, error) {
	out, err := i.account.iam.ListOpenIDConnectProviders(ctx, &iam.ListOpenIDConnectProvidersInput{})
	if err != nil {
		return nil, normalizeError(err)
	}
	var list []policy.ARN
	for _, p := range out.OpenIDConnectProviderList {
		arn, err := policy.ParseARN(aws.ToString(p.Arn))
		if err != nil {
			return nil, fmt.Errorf("ListOpenIDConnectProviders: %w", err)
		}
		list = append(list, arn)
	}
	return list, nil
}

// Role returns nil if there is no role.
func (i *Inspector) Role(ctx context.Context, name string) (*plan.Role, error) {
	return i.account.role(ctx, name)
}

// Roles returns the roles on a path, by name, as a list contains them: without boundary, tags
// and permission documents.
func (i *Inspector) Roles(ctx context.Context, path string) (map[string]plan.Role, error) {
	roles, _, err := i.account.list(ctx, path)
	return roles, err
}

// Policies returns all documents that give permissions to a role: inline ones, and
// attached ones, which are named by their ARNs.
func (i *Inspector) Policies(ctx context.Context, role string) ([]check.RolePolicy, error) {
	inline, err := i.account.inlinePolicies(ctx, role)
	if err != nil {
		return nil, normalizeError(err)
	}
	attached, err := i.account.attachedPolicies(ctx, role)
	if err != nil {
		return nil, normalizeError(err)
	}
	var list []check.RolePolicy
	for _, name := range inline {
		text, err := i.account.inlineDocument(ctx, role, name)
		if err != nil {
			return nil, normalizeError(err)
		}
		d, err := parse(text, name)
		if err != nil {
			return nil, err
		}
		list = append(list, check.RolePolicy{Name: name, Document: d})
	}
	for _, arn := range attached {
		d, err := i.Document(ctx, arn)
		if err != nil {
			return nil, err
		}
		list = append(list, check.RolePolicy{Name: arn, Document: d})
	}
	return list, nil
}

// Document returns the current version of a managed policy.
func (i *Inspector) Document(ctx context.Context, arn string) (policy.Document, error) {
	parsed, err := policy.ParseARN(arn)
	if err != nil {
		return policy.Document{}, err
	}
	return i.account.document(ctx, parsed)
}

// parse reads the document of the policy of this name.
func parse(text, name string) (policy.Document, error) {
	d, err := policy.ParseDocument(text)
	if err != nil {
		return policy.Document{}, fmt.Errorf("policy %s: %w", name, err)
	}
	return d, nil
}
