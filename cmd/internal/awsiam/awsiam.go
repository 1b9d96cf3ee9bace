// Package awsiam reads and changes IAM for plans. No other shipped package talks to
// IAM. It also asks AMP whether a workspace exists.
//
// [IAM.Observe] reads what a plan is computed from. It makes one call per account for the
// provider, one for the list of the cluster's roles if the target asks for it, and two per role.
// With the list it makes two more calls per role, for policies that others attached. [pace]
// limits the rate. If every service account has its own role, each observation reads the list
// and only some of the roles. [IAM.Apply] makes one change, after it has read again who owns the
// resource. Neither decides anything: policy/plan does.
package awsiam

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"

	"github.com/ampbridge/ampbridge/cmd/internal/awsclient"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

const (
	// IAM throttles with token buckets of unpublished size. Six attempts with growing,
	// jittered pauses outlast a burst and still end within a run.
	maxAttempts = 6
	maxBackoff  = 5 * time.Second
	// callTimeout is the timeout of one attempt.
	callTimeout = 15 * time.Second

	sessionName = "ampbridge-sync"
)

// IAM makes calls to the IAM of several accounts, with credentials of the SDK's default
// chain: environment, web identity, shared files, instance. Only one
// goroutine may use it at a time.
type IAM struct {
	// OnCall, if set, is called for each attempt of a call to IAM or AMP, with the
	// operation and a result: "ok", AWS's error code, or "no answer".
	OnCall func(operation, result string)
	// Frugal saves reads. If the target asks for the list of the cluster's path, Observe treats a
	// role that is not in the list as missing. If a role of that name exists on another path,
	// CreateRole fails, and from then on Observe reads each role.
	Frugal bool
	// Patient waits up to minutes, in the middle of a pass, until AWS accepts a throttled
	// call. Without it a call is tried for some seconds.
	Patient bool
	// HTTPClient makes the HTTP requests; nil means the SDK's client.
	HTTPClient aws.HTTPClient

	paces     map[string]*pace
	syncRoles map[string]policy.ARN
	accounts  map[string]*account
	// throttled has the accounts for which AWS throttled the last observation.
	throttled map[string]bool
}

// account is the IAM of one account, after a check that the credentials belong to it.
type account struct {
	id  string
	iam *iam.Client
	sts *sts.Client
	// config is for clients in other regions.
	config aws.Config
	// created has the time when this process created a role, because IAM may not show it at once.
	created map[policy.ARN]time.Time
	// roleCache holds those parts of roles that lists do not contain; see [account.listRoles].
	roleCache map[string]cachedRole
	// further holds, per role, the policies that sync did not write, as they were last listed.
	further map[string]furtherPolicies
	// pass counts the observations.
	pass int
	// readAll is true after a role existed that no list contained.
	readAll bool
}

// New returns an IAM for accounts as the policy lists them. It reaches an account with a syncRole
// by assuming that role, and every other account directly.
func New(accounts []policy.Account) *IAM {
	i := &IAM{syncRoles: map[string]policy.ARN{}, accounts: map[string]*account{}, throttled: map[string]bool{}, paces: map[string]*pace{}}
	for _, a := range accounts {
		i.syncRoles[a.ID] = a.SyncRole
	}
	return i
}

// open creates the clients of an account, and checks that their credentials
// belong to that account.
func (i *IAM) open(ctx context.Context, target plan.Target) (*account, error) {
	a := i.accounts[target.Account]
	if a == nil {
		cfg, err := awsclient.Config(ctx,
			config.WithDefaultRegion(target.Region),
			config.WithRetryer(newRetryer),
			config.WithHTTPClient(i.httpClient()),
		)
		if err != nil {
			return nil, err
		}
		// The region selects the partition's IAM. It is the workspace's region, because sync can run
		// anywhere.
		cfg.Region = target.Region
		chained, err := i.chained(ctx, cfg, target.Account)
		if err != nil {
			return nil, err
		}
		if role := i.syncRoles[target.Account]; chained {
			assume := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg, SignForEndpoint), role.String(), func(o *stscreds.AssumeRoleOptions) {
				o.RoleSessionName = sessionName
			})
			cfg.Credentials = aws.NewCredentialsCache(assume)
		}
		observed := i.pace(stsOf(target.Account)).observe
		a = &account{
			id:        target.Account,
			config:    cfg,
			iam:       iam.NewFromConfig(cfg, signIAMForEndpoint, i.counted, i.paced(target.Account)),
			sts:       sts.NewFromConfig(cfg, SignForEndpoint, func(o *sts.Options) { o.APIOptions = append(o.APIOptions, observed) }),
			created:   map[policy.ARN]time.Time{},
			roleCache: map[string]cachedRole{},
			further:   map[string]furtherPolicies{},
		}
	}
	identity, err := a.sts.GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return nil, normalizeError(err)
	}
	if got := aws.ToString(identity.Account); got != target.Account {
		return nil, fmt.Errorf(
			"the credentials are of account %s, not of %s: list %s under trust.accounts with a syncRole that these "+
				"credentials may assume",
			got,
			target.Account,
			target.Account,
		)
	}
	i.accounts[target.Account] = a
	return a, nil
}

// chained reports whether IAM must assume the account's sync role. A web identity can
// already be that role, and a role can usually not assume itself.
func (i *IAM) chained(ctx context.Context, cfg aws.Config, account string) (bool, error) {
	role := i.syncRoles[account]
	if role.IsZero() {
		return false, nil
	}
	identity, err := sts.NewFromConfig(cfg, SignForEndpoint).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return false, normalizeError(err)
	}
	// A session's ARN contains the role's name without the path. Names are unique without it.
	session := fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/", role.Partition, role.Account, role.RoleName())
	return !strings.HasPrefix(aws.ToString(identity.Arn), session), nil
}

// SignForEndpoint makes an STS client sign for the region of its endpoint, if one
// is configured (AWS_ENDPOINT_URL_STS). The SDK would sign for the workspace's region.
func SignForEndpoint(o *sts.Options) {
	o.Region = policy.SigningRegion(aws.ToString(o.BaseEndpoint), o.Region)
}

// signIAMForEndpoint does the same for IAM (AWS_ENDPOINT_URL_IAM).
func signIAMForEndpoint(o *iam.Options) {
	o.Region = policy.SigningRegion(aws.ToString(o.BaseEndpoint), o.Region)
}

// counted makes a client report each attempt to OnCall.
func (i *IAM) counted(o *iam.Options) { o.APIOptions = i.counting(o.APIOptions) }

func (i *IAM) counting(options []func(*middleware.Stack) error) []func(*middleware.Stack) error {
	if i.OnCall == nil {
		return options
	}
	count := middleware.FinalizeMiddlewareFunc(
		"CountCalls",
		func(ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler) (middleware.FinalizeOutput,
			middleware.Metadata, error) {
			out, metadata, err := next.HandleFinalize(ctx, in)
			result := "ok"
			if answer, ok := errors.AsType[smithy.APIError](err); ok {
				result = answer.ErrorCode()
			} else if err != nil {
				result = "no answer"
			}
			i.OnCall(middleware.GetOperationName(ctx), result)
			return out, metadata, err
		},
	)
	return append(options, func(stack *middleware.Stack) error {
		return stack.Finalize.Insert(count, (*retry.Attempt)(nil).ID(), middleware.After)
	})
}

// paced makes a client use the account's pace.
func (i *IAM) paced(account string) func(*iam.Options) {
	p := i.pace(account)
	return func(o *iam.Options) { o.Retryer, o.APIOptions = p, append(o.APIOptions, p.observe) }
}

func (i *IAM) httpClient() aws.HTTPClient {
	if i.HTTPClient != nil {
		return i.HTTPClient
	}
	return awshttp.NewBuildableClient().WithTimeout(callTimeout)
}

func newRetryer() aws.Retryer { return newStandard() }

func newStandard() *retry.Standard {
	return retry.NewStandard(func(o *retry.StandardOptions) {
		o.MaxAttempts, o.MaxBackoff = maxAttempts, maxBackoff
		// The SDK does not retry this code, although its message asks to try again.
		o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: map[string]struct{}{
			(*types.ConcurrentModificationException)(nil).ErrorCode(): {},
		}})
	})
}

// Check returns an error if the credentials do not belong to the account.
func (i *IAM) Check(ctx context.Context, target plan.Target) error {
	_, err := i.open(ctx, target)
	return err
}

// Observe reads the account's provider and the roles that the target names. An error
// goes into [plan.Account.Problem], so that one account does not stop the
// others.
func (i *IAM) Observe(ctx context.Context, target plan.Target) plan.Account {
	found, err := i.observe(ctx, target)
	i.throttled[target.Account] = Throttled(err)
	if err != nil {
		return plan.Account{Problem: err.Error()}
	}
	return found
}

// Throttled reports whether AWS throttled the last observation of the account.
func (i *IAM) Throttled(account string) bool { return i.throttled[account] }

func (i *IAM) observe(ctx context.Context, target plan.Target) (plan.Account, error) {
	a, err := i.open(ctx, target)
	if err != nil {
		return plan.Account{}, err
	}
	i.pace(target.Account).begin()
	found := plan.Account{Roles: map[string]plan.Role{}}
	if found.Provider, err = a.provider(ctx, target.Provider); err != nil {
		return plan.Account{}, err
	}
	if target.All {
		found.Roles, err = a.listRoles(ctx, target, !i.Frugal)
		return found, err
	}
	var listed map[string]plan.Role
	if target.Path != "" {
		if listed, _, err = a.list(ctx, target.Path); err != nil {
			return plan.Account{}, err
		}
	}
	for _, name := range target.Roles {
		if _, shown := listed[name]; !shown && listed != nil && i.Frugal && !a.readAll {
			continue
		}
		role, err := a.role(ctx, name)
		if err != nil {
			return plan.Account{}, err
		}
		if role == nil {
			continue
		}
		if role.Permissions, err = a.permissions(ctx, name); err != nil {
			return plan.Account{}, err
		}
		if target.Path != "" {
			if err := a.listFurther(ctx, name); err != nil {
				return plan.Account{}, err
			}
		}
		role.Further, role.FurtherProblem = a.further[name].names, a.further[name].problem
		found.Roles[name] = *role
	}
	found.Orphans, err = a.orphans(ctx, target, listed)
	return found, err
}

// References completes an observation for the removal of everything. It searches the trust
// documents of all the account's roles for the provider.
func (i *IAM) References(ctx context.Context, target plan.Target, found plan.Account) plan.Account {
	a := i.accounts[target.Account]
	if a == nil || found.Problem != "" {
		return found
	}
	pages := iam.NewListRolesPaginator(a.iam, &iam.ListRolesInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			found.ReferencesProblem = normalizeError(err).Error()
			return found
		}
		for _, r := range page.Roles {
			trust, err := url.PathUnescape(aws.ToString(r.AssumeRolePolicyDocument))
			arn, invalid := policy.ParseARN(aws.ToString(r.Arn))
			if err := errors.Join(err, invalid); err != nil {
				found.ReferencesProblem = fmt.Sprintf("ListRoles: role %s: %v", aws.ToString(r.RoleName), err)
				return found
			}
			// Any statement counts: a document that contains the name is reason enough to keep the provider.
			if strings.Contains(trust, target.Provider.String()) {
				found.References = append(found.References, arn)
			}
		}
	}
	return found
}

// orphans returns the listed roles that the target does not name. The list has no
// tags, so each role is read.
func (a *account) orphans(ctx context.Context, target plan.Target, listed map[string]plan.Role) ([]plan.Role, error) {
	var list []plan.Role
	for _, name := range names(listed, nil) {
		if slices.Contains(target.Roles, name) {
			continue
		}
		role, err := a.role(ctx, name)
		if err != nil {
			return nil, err
		}
		if role != nil {
			list = append(list, *role)
		}
	}
	return list, nil
}

// provider returns nil if there is no provider.
func (a *account) provider(ctx context.Context, arn policy.ARN) (*plan.Provider, error) {
	out, err := a.iam.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(arn.String())})
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, normalizeError(err)
	}
	return &plan.Provider{Audiences: out.ClientIDList, Thumbprints: out.ThumbprintList, Tags: tagMap(out.Tags)}, nil
}

// role returns nil if there is no role. It does not read the permission document.
func (a *account) role(ctx context.Context, name string) (*plan.Role, error) {
	out, err := a.iam.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, normalizeError(err)
	}
	role, err := roleOf(out.Role)
	if err != nil {
		return nil, fmt.Errorf("GetRole: %w", err)
	}
	return role, nil
}

// roleOf converts IAM's description of a role. In lists it has no tags and no boundary.
func roleOf(r *types.Role) (*plan.Role, error) {
	arn, err := policy.ParseARN(aws.ToString(r.Arn))
	if err != nil {
		return nil, err
	}
	trust, err := url.PathUnescape(aws.ToString(r.AssumeRolePolicyDocument))
	if err != nil {
		return nil, fmt.Errorf("trust document of %s: %w", arn, err)
	}
	role := &plan.Role{
		ARN: arn, Trust: trust, Description: aws.ToString(r.Description), Tags: tagMap(r.Tags),
		MaxSession: time.Duration(aws.ToInt32(r.MaxSessionDuration)) * time.Second,
	}
	if r.PermissionsBoundary != nil {
		role.Boundary = aws.ToString(r.PermissionsBoundary.PermissionsBoundaryArn)
	}
	return role, nil
}

// permissions returns an empty text if the role has no policy with sync's name.
func (a *account) permissions(ctx context.Context, role string) (string, error) {
	document, err := a.inlineDocument(ctx, role, plan.PolicyName)
	if missing(err) {
		return "", nil
	}
	return document, normalizeError(err)
}

// inlineDocument returns the document of one of the role's own policies.
func (a *account) inlineDocument(ctx context.Context, role, name string) (string, error) {
	out, err := a.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &role, PolicyName: &name})
	if err != nil {
		return "", err
	}
	document, err := url.PathUnescape(aws.ToString(out.PolicyDocument))
	if err != nil {
		return "", fmt.Errorf("GetRolePolicy: document of %s: %w", role, err)
	}
	return document, nil
}

// missing compares the error code and not the type. The SDK has the type only for calls that
// declare it in the API's model, and CreateRole does not, for a missing boundary.
func missing(err error) bool {
	var e smithy.APIError
	return errors.As(err, &e) && e.ErrorCode() == (*types.NoSuchEntityException)(nil).ErrorCode()
}

func exists(err error) bool {
	var e *types.EntityAlreadyExistsException
	return errors.As(err, &e)
}

func tagMap(tags []types.Tag) map[string]string {
	m := map[string]string{}
	for _, t := range tags {
		m[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return m
}
