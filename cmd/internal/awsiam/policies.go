package awsiam

import (
	"context"
	"fmt"
	"net/url"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// maxPolicyVersions is the number of versions that IAM keeps of a managed policy.
const maxPolicyVersions = 5

// ManagedPolicy reads a customer managed policy of an account that was observed;
// nil if there is none.
func (i *IAM) ManagedPolicy(ctx context.Context, arn policy.ARN) (*plan.ManagedPolicy, error) {
	a := i.accounts[arn.Account]
	if a == nil {
		return nil, fmt.Errorf("account %s was not observed", arn.Account)
	}
	return a.managedPolicy(ctx, arn)
}

// BoundaryDocument reads the document of a permissions boundary in an account that was
// observed. The boundary may be a managed policy of AWS itself.
func (i *IAM) BoundaryDocument(ctx context.Context, account string, arn policy.ARN) (policy.Document, error) {
	a := i.accounts[account]
	if a == nil {
		return policy.Document{}, fmt.Errorf("account %s was not observed", account)
	}
	return a.document(ctx, arn)
}

// document returns the current version of a managed policy.
func (a *account) document(ctx context.Context, arn policy.ARN) (policy.Document, error) {
	found, err := a.managedPolicy(ctx, arn)
	switch {
	case err != nil:
		return policy.Document{}, err
	case found == nil:
		return policy.Document{}, fmt.Errorf("the policy %s does not exist", arn)
	}
	return parse(found.Document, arn.String())
}

func (a *account) managedPolicy(ctx context.Context, arn policy.ARN) (*plan.ManagedPolicy, error) {
	name := aws.String(arn.String())
	found, err := a.iam.GetPolicy(ctx, &iam.GetPolicyInput{PolicyArn: name})
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, normalizeError(err)
	}
	version, err := a.iam.GetPolicyVersion(ctx, &iam.GetPolicyVersionInput{PolicyArn: name, VersionId: found.Policy.DefaultVersionId})
	if err != nil {
		return nil, normalizeError(err)
	}
	document, err := url.PathUnescape(aws.ToString(version.PolicyVersion.Document))
	if err != nil {
		return nil, fmt.Errorf("GetPolicyVersion: document of %s: %w", arn, err)
	}
	return &plan.ManagedPolicy{Document: document, Tags: tagMap(found.Policy.Tags)}, nil
}

func (a *account) createPolicy(ctx context.Context, c plan.Change) error {
	_, err := a.iam.CreatePolicy(ctx, &iam.CreatePolicyInput{
		PolicyName: aws.String(c.Resource.RoleName()), Path: path(c.Resource), Description: &c.Description,
		PolicyDocument: aws.String(c.Permissions.String()), Tags: tagList(c.Tags),
	})
	if exists(err) {
		return a.checkPolicy(ctx, c)
	}
	return normalizeError(err)
}

// updatePolicy creates a new version and makes it the default. If IAM keeps no more versions,
// it first deletes the oldest one that is not the default.
func (a *account) updatePolicy(ctx context.Context, c plan.Change) error {
	if err := a.checkPolicy(ctx, c); err != nil {
		return err
	}
	name := aws.String(c.Resource.String())
	versions, err := a.iam.ListPolicyVersions(ctx, &iam.ListPolicyVersionsInput{PolicyArn: name})
	if err != nil {
		return err
	}
	if len(versions.Versions) >= maxPolicyVersions {
		oldest := versions.Versions[0]
		for _, v := range versions.Versions {
			if oldest.IsDefaultVersion || (!v.IsDefaultVersion && v.CreateDate.Before(*oldest.CreateDate)) {
				oldest = v
			}
		}
		if _, err := a.iam.DeletePolicyVersion(
			ctx,
			&iam.DeletePolicyVersionInput{PolicyArn: name, VersionId: oldest.VersionId},
		); err != nil {
			return err
		}
	}
	_, err = a.iam.CreatePolicyVersion(
		ctx,
		&iam.CreatePolicyVersionInput{PolicyArn: name, PolicyDocument: aws.String(c.Permissions.String()), SetAsDefault: true},
	)
	return err
}

func (a *account) tagPolicy(ctx context.Context, c plan.Change) error {
	if err := a.checkPolicy(ctx, c); err != nil {
		return err
	}
	_, err := a.iam.TagPolicy(ctx, &iam.TagPolicyInput{PolicyArn: aws.String(c.Resource.String()), Tags: tagList(c.Tags)})
	return err
}

func (a *account) checkPolicy(ctx context.Context, c plan.Change) error {
	found, err := a.managedPolicy(ctx, c.Resource)
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("%s: the policy %s does not exist: a policy on another path has the name", c.Call, c.Resource)
	case !plan.Owned(found.Tags, c.Owner):
		return errNotOwned(c, c.Resource)
	}
	return nil
}
