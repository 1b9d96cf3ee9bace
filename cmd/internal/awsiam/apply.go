package awsiam

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// visibleAfter is how long to wait until IAM's own calls find a new role. It usually takes
// seconds, and rarely half a minute.
const visibleAfter = 30 * time.Second

// newRoleBackoff is the pause between two reads of a new role.
var newRoleBackoff = wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Cap: 2 * time.Second, Steps: math.MaxInt}

// Apply makes one change of a plan, in an account that was observed. It first
// reads the owner again, because a plan may be minutes old. If the resource now has another
// owner, Apply changes nothing and returns an error. It does not read the owner of a
// role that it created a moment ago. A throttled call is repeated without another read.
func (i *IAM) Apply(ctx context.Context, c plan.Change) error {
	a := i.accounts[c.Account]
	if a == nil {
		return fmt.Errorf("account %s was not observed", c.Account)
	}
	defer delete(a.roleCache, c.Resource.RoleName())
	switch {
	case c.Call == plan.CreateProvider:
		return a.createProvider(ctx, c)
	case c.Call == plan.CreateRole:
		return a.createRole(ctx, c)
	case c.Call == plan.CreatePolicy:
		return a.createPolicy(ctx, c)
	case c.Call == plan.TagPolicy:
		return normalizeError(a.tagPolicy(ctx, c))
	case c.Call == plan.UpdatePolicy:
		return normalizeError(a.updatePolicy(ctx, c))
	case c.Call.Deletes():
		return normalizeError(a.delete(ctx, c))
	case c.Call.OnProvider():
		if err := a.checkProvider(ctx, c); err != nil {
			return err
		}
		return normalizeError(a.changeProvider(ctx, c))
	}
	for backoff := newRoleBackoff; ; {
		made, ours := a.created[c.Resource]
		fresh := ours && time.Since(made) <= visibleAfter
		// A role that this process created a moment ago belongs to the cluster, so no read is needed.
		found := fresh && c.Call == plan.PutPermissions
		if !found {
			var err error
			if found, err = a.checkRole(ctx, c); err != nil {
				return err
			}
		}
		if found {
			err := a.changeRole(ctx, c)
			if missing(err) && c.Call == plan.PutBoundary {
				return noBoundary(c) // the role exists
			}
			if !missing(err) {
				return normalizeError(err)
			}
		}
		// A new role may not be visible yet. Any other role was deleted.
		if !fresh {
			return fmt.Errorf("%s: the role %s was deleted: the next run creates it again", c.Call, c.Resource)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff.Step()):
		}
	}
}

// If the resource exists already, the call is either refused, or an earlier attempt created the
// resource and its answer was lost.

func (a *account) createProvider(ctx context.Context, c plan.Change) error {
	issuer := "https://" + strings.TrimPrefix(c.Resource.Resource, "oidc-provider/")
	_, err := a.iam.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{
		Url: &issuer, ClientIDList: []string{c.Audience}, ThumbprintList: c.Thumbprints, Tags: tagList(c.Tags),
	})
	if exists(err) {
		return a.checkProvider(ctx, c)
	}
	return normalizeError(err)
}

func (a *account) createRole(ctx context.Context, c plan.Change) error {
	// Sync's own role, which bootstrap creates, has no boundary: its permission document is the
	// limit, and sync cannot change that document.
	var boundary *string
	if !c.Boundary.IsZero() {
		boundary = aws.String(c.Boundary.String())
	}
	// One call sets trust, tags and boundary, so the role is never without an owner or a boundary.
	_, err := a.iam.CreateRole(ctx, &iam.CreateRoleInput{
		RoleName: aws.String(c.Resource.RoleName()), Path: path(c.Resource),
		AssumeRolePolicyDocument: aws.String(c.Trust.String()),
		PermissionsBoundary:      boundary,
		MaxSessionDuration:       maxSession(c),
		Description:              &c.Description,
		Tags:                     tagList(c.Tags),
	})
	if exists(err) {
		if found, checked := a.checkMade(ctx, c); checked != nil || found {
			return checked
		}
	}
	if missing(err) && boundary != nil {
		return noBoundary(c)
	}
	if err == nil {
		a.created[c.Resource] = time.Now()
	}
	return normalizeError(err)
}

// checkMade is [account.checkRole] for a role that exists although the plan creates it. It
// also returns an error if the role's trust document differs from the plan's.
func (a *account) checkMade(ctx context.Context, c plan.Change) (found bool, err error) {
	role, err := a.role(ctx, c.Resource.RoleName())
	if err != nil || role == nil {
		return false, err
	}
	a.readAll = true // the plan was computed without this role
	if !role.OwnedAt(c.Resource, c.Owner) {
		return true, errNotOwned(c, role.ARN)
	}
	if trust, err := policy.ParseDocument(role.Trust); err != nil || !policy.Equal(trust, *c.Trust) {
		return true, fmt.Errorf("%s: the role %s exists, with another trust document: the next run changes "+
			"it", c.Call, c.Resource)
	}
	return true, nil
}

// path returns the path of a role or policy as IAM's calls take it.
func path(arn policy.ARN) *string {
	_, rest, _ := strings.Cut(arn.Resource, "/")
	dir := "/" + rest[:strings.LastIndexByte(rest, '/')+1]
	return &dir
}

func noBoundary(c plan.Change) error {
	return fmt.Errorf("%s: %s has no policy %s: create it there, or name another as "+
		"trust.permissionsBoundary", c.Call, c.Account, c.Boundary)
}

func (a *account) changeProvider(ctx context.Context, c plan.Change) (err error) {
	arn := aws.String(c.Resource.String())
	switch c.Call {
	case plan.AddAudience:
		_, err = a.iam.AddClientIDToOpenIDConnectProvider(ctx, &iam.AddClientIDToOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: arn, ClientID: &c.Audience,
		})
	case plan.UpdateThumbprints:
		_, err = a.iam.UpdateOpenIDConnectProviderThumbprint(ctx, &iam.UpdateOpenIDConnectProviderThumbprintInput{
			OpenIDConnectProviderArn: arn, ThumbprintList: c.Thumbprints,
		})
	case plan.TagProvider:
		_, err = a.iam.TagOpenIDConnectProvider(ctx, &iam.TagOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: arn, Tags: tagList(c.Tags),
		})
	default:
		err = fmt.Errorf("%s: no such change of a provider", c.Call)
	}
	return err
}

func (a *account) changeRole(ctx context.Context, c plan.Change) (err error) {
	name := aws.String(c.Resource.RoleName())
	switch c.Call {
	case plan.PutBoundary:
		_, err = a.iam.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{
			RoleName: name, PermissionsBoundary: aws.String(c.Boundary.String()),
		})
	case plan.PutPermissions:
		_, err = a.iam.PutRolePolicy(ctx, &iam.PutRolePolicyInput{
			RoleName:       name,
			PolicyName:     aws.String(plan.PolicyName),
			PolicyDocument: aws.String(c.Permissions.String()),
		})
	case plan.UpdateTrust:
		_, err = a.iam.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{
			RoleName: name, PolicyDocument: aws.String(c.Trust.String()),
		})
	case plan.UpdateSession:
		_, err = a.iam.UpdateRole(ctx, &iam.UpdateRoleInput{RoleName: name, MaxSessionDuration: maxSession(c), Description: &c.Description})
	case plan.TagRole:
		_, err = a.iam.TagRole(ctx, &iam.TagRoleInput{RoleName: name, Tags: tagList(c.Tags)})
	default:
		err = fmt.Errorf("%s: no such change of a role", c.Call)
	}
	return err
}

// delete makes a change that deletes. It succeeds if the resource does not exist any more.
func (a *account) delete(ctx context.Context, c plan.Change) error {
	if c.Call == plan.DeleteProvider {
		found, err := a.provider(ctx, c.Resource)
		if err != nil || found == nil {
			return err
		}
		if !plan.Owned(found.Tags, c.Owner) {
			return errNotOwned(c, c.Resource)
		}
		_, err = a.iam.DeleteOpenIDConnectProvider(ctx, &iam.DeleteOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: aws.String(c.Resource.String()),
		})
		return err
	}
	found, err := a.checkRole(ctx, c)
	if err != nil || !found {
		return err
	}
	name := aws.String(c.Resource.RoleName())
	switch c.Call {
	case plan.DeletePermissions:
		_, err = a.iam.DeleteRolePolicy(ctx, &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: aws.String(plan.PolicyName)})
	case plan.DeleteRole:
		_, err = a.iam.DeleteRole(ctx, &iam.DeleteRoleInput{RoleName: name})
	default:
		err = fmt.Errorf("%s: no such deletion", c.Call)
	}
	if missing(err) {
		return nil
	}
	return err
}

func (a *account) checkProvider(ctx context.Context, c plan.Change) error {
	found, err := a.provider(ctx, c.Resource)
	switch {
	case err != nil:
		return err
	case found == nil:
		return fmt.Errorf("%s: the provider %s does not exist: the next run creates it again", c.Call, c.Resource)
	case c.Adopts && found.Tags[plan.TagOwner] == "":
	case !plan.Owned(found.Tags, c.Owner):
		return errNotOwned(c, c.Resource)
	}
	return nil
}

// checkRole reports whether the role exists. It returns an error if the role has
// another owner.
func (a *account) checkRole(ctx context.Context, c plan.Change) (found bool, err error) {
	role, err := a.role(ctx, c.Resource.RoleName())
	if err != nil || role == nil {
		return false, err
	}
	if !role.OwnedAt(c.Resource, c.Owner) {
		return true, errNotOwned(c, role.ARN)
	}
	return true, nil
}

func errNotOwned(c plan.Change, found policy.ARN) error {
	return fmt.Errorf(
		"%s: refused: %s is not this cluster's (tag %s), although it did not exist or was this cluster's when the "+
			"plan was computed; run again to see the fix",
		c.Call,
		found,
		plan.TagOwner,
	)
}

func maxSession(c plan.Change) *int32 {
	const most = 12 * 60 * 60 // the limit of IAM
	return aws.Int32(int32(min(max(c.MaxSessionSeconds, 0), most)))
}

func tagList(tags map[string]string) []types.Tag {
	var list []types.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		list = append(list, types.Tag{Key: aws.String(key), Value: aws.String(tags[key])})
	}
	return list
}
