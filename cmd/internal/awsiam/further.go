package awsiam

import (
	"context"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/policy/plan"
)

// furtherPolicies are the policies of a role that sync did not write: inline ones by name,
// attached ones by ARN. problem is why they could not be listed; empty if they were listed.
type furtherPolicies struct {
	names   []string
	problem string
}

// listFurther lists the policies that others gave to a role. Permissions of an older version
// do not allow that. Such an error is recorded and does not stop the pass.
func (a *account) listFurther(ctx context.Context, role string) error {
	names, err := a.policyNames(ctx, role)
	switch {
	case missing(err):
		delete(a.further, role)
		return nil
	case denied(err):
		a.further[role] = furtherPolicies{problem: normalizeError(err).Error()}
		return nil
	case err != nil:
		return normalizeError(err)
	}
	a.further[role] = furtherPolicies{names: names}
	return nil
}

func (a *account) policyNames(ctx context.Context, role string) ([]string, error) {
	inline, err := a.inlinePolicies(ctx, role)
	if err != nil {
		return nil, err
	}
	attached, err := a.attachedPolicies(ctx, role)
	others := slices.DeleteFunc(inline, func(name string) bool { return name == plan.PolicyName })
	return append(others, attached...), err
}

// inlinePolicies returns the names of the role's own policies.
func (a *account) inlinePolicies(ctx context.Context, role string) (names []string, err error) {
	pages := iam.NewListRolePoliciesPaginator(a.iam, &iam.ListRolePoliciesInput{RoleName: &role})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		names = append(names, page.PolicyNames...)
	}
	return names, nil
}

// attachedPolicies returns the ARNs of the managed policies that are attached to the role.
func (a *account) attachedPolicies(ctx context.Context, role string) (arns []string, err error) {
	pages := iam.NewListAttachedRolePoliciesPaginator(a.iam, &iam.ListAttachedRolePoliciesInput{RoleName: &role})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range page.AttachedPolicies {
			arns = append(arns, aws.ToString(p.PolicyArn))
		}
	}
	return arns, nil
}
