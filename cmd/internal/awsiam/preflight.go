package awsiam

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Headroom returns the unused part of the quotas of an account that was observed. IAM
// reports its quota of roles, but not its quota of OIDC providers.
func (i *IAM) Headroom(ctx context.Context, account string, providerQuota int) (plan.Headroom, error) {
	a := i.accounts[account]
	if a == nil {
		return plan.Headroom{}, fmt.Errorf("account %s was not observed", account)
	}
	summary, err := a.iam.GetAccountSummary(ctx, &iam.GetAccountSummaryInput{})
	if err != nil {
		return plan.Headroom{}, normalizeError(err)
	}
	quota, found := summary.SummaryMap["RolesQuota"]
	if !found {
		return plan.Headroom{}, errors.New("GetAccountSummary: RolesQuota is missing in the answer")
	}
	providers, err := a.iam.ListOpenIDConnectProviders(ctx, &iam.ListOpenIDConnectProvidersInput{})
	if err != nil {
		return plan.Headroom{}, normalizeError(err)
	}
	return plan.Headroom{
		Roles:     int(quota - summary.SummaryMap["Roles"]),
		Providers: providerQuota - len(providers.OpenIDConnectProviderList),
	}, nil
}

// WorkspaceExists reports whether AMP has a workspace, in an account that was observed.
func (i *IAM) WorkspaceExists(ctx context.Context, w policy.Workspace) (bool, error) {
	a := i.accounts[w.Account]
	if a == nil {
		return false, fmt.Errorf("account %s was not observed", w.Account)
	}
	config := a.config.Copy()
	config.Region = w.Region
	_, err := amp.NewFromConfig(config, func(o *amp.Options) {
		o.APIOptions = append(i.counting(o.APIOptions), i.pace(ampOf(w.Account)).observe)
	}).
		DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: aws.String(w.ID())})
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		switch answer.ErrorCode() {
		// AMP calls an id invalid if no workspace can have it.
		case "ResourceNotFoundException", "ValidationException":
			return false, nil
		}
	}
	return err == nil, normalizeError(err)
}
