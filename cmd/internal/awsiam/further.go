package awsiam

import (
	"context"

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

func (a *account) policyNames(ctx context.Context, role string) (names []string, err error) {
	inline := iam.NewListRolePoliciesPaginator(a.iam, &iam.ListRolePoliciesInput{RoleName: &role})
	for inline.HasMorePages() {
		page, err := inline.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, name := range page.PolicyNames {
			if name != plan.PolicyName {
				names = append(names, name)
			}
		}
	}
	attached := iam.NewListAttachedRolePoliciesPaginator(a.iam, &iam.ListAttachedRolePoliciesInput{RoleName: &role})
	for attached.HasMorePages() {
		page, err := attached.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range page.AttachedPolicies {
			names = append(names, aws.ToString(p.PolicyArn))
		}
	}
	return names, nil
}
