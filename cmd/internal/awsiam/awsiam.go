// Package awsiam reads and changes IAM for plans. No other shipped package talks to
// IAM. It also asks AMP whether a workspace exists.
//
// [IAM.Observe] reads what a plan is made from: one read per account for its
// provider, one for the list of the cluster's roles where that is asked for, and
// two per role; with the list two more per role, for policies that others gave it.
// [pace] says how fast. Where every service account has a role of its own, the list comes
// with each observation, and roles are read in turn. [IAM.Apply] makes one change, after it
// has read once more who owns the thing to change. Neither decides anything: policy/plan does.
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

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

const (
	// IAM throttles by token buckets of unpublished size: a handful of attempts
	// with growing, jittered pauses outlasts a burst and still ends within a run.
	maxAttempts = 6
	maxBackoff  = 5 * time.Second
	// callTimeout is for one attempt.
	callTimeout = 15 * time.Second

	sessionName = "ampbridge-sync"
)

// IAM reaches the IAM of several accounts, with credentials of the SDK's default
// chain: environment, web identity, shared files, instance. It is for one
// goroutine at a time.
type IAM struct {
	// OnCall, if set, is called for each attempt of a call to IAM or AMP: with the
	// operation, and "ok", AWS's error code, or "no answer".
	OnCall func(operation, result string)
	// Frugal leaves out reads that a refused change makes up for: Observe takes a role
	// for missing that is not in the list of the cluster's path, where the target asks
	// for that list. A role of its name elsewhere makes CreateRole fail. From then on
	// Observe reads each role.
	Frugal bool
	// Patient waits in the middle of a pass until a throttled call is let through,
	// for minutes. Without it a call is tried for some seconds.
	Patient bool
	// HTTPClient is what calls go through; nil: the SDK's.
	HTTPClient aws.HTTPClient

	paces     map[string]*pace
	syncRoles map[string]policy.ARN
	accounts  map[string]*account
	// throttled are the accounts whose last observation AWS throttled.
	throttled map[string]bool
}

// account is the IAM of one account, once it is known to be that account's.
type account struct {
	id  string
	iam *iam.Client
	sts *sts.Client
	// config makes further clients, of other regions.
	config aws.Config
	// created holds when this process made a role: IAM may not show it at once.
	created map[policy.ARN]time.Time
	// roleCache has what lists do not show of roles; see [account.listRoles].
	roleCache map[string]cachedRole
	// further has the policies of roles that sync did not write, as they were last listed.
	further map[string]furtherPolicies
	// pass counts the observations.
	pass int
	// readAll: a role that no list showed was there.
	readAll bool
}

// New is for accounts as the policy lists them: one with a syncRole is reached
// by assuming it, every other directly.
func New(accounts []policy.Account) *IAM {
	i := &IAM{syncRoles: map[string]policy.ARN{}, accounts: map[string]*account{}, throttled: map[string]bool{}, paces: map[string]*pace{}}
	for _, a := range accounts {
		i.syncRoles[a.ID] = a.SyncRole
	}
	return i
}

// open prepares the clients of an account and makes sure that their credentials
// are that account's.
func (i *IAM) open(ctx context.Context, target plan.Target) (*account, error) {
	a := i.accounts[target.Account]
	if a == nil {
		cfg, err := config.LoadDefaultConfig(ctx,
			config.WithDefaultRegion(target.Region),
			config.WithRetryer(newRetryer),
			config.WithHTTPClient(i.httpClient()),
		)
		if err != nil {
			return nil, fmt.Errorf("AWS configuration: %w", err)
		}
		// The partition's IAM follows from the region: the workspace's, wherever
		// sync itself runs.
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
			"the credentials are of account %s, not of %s: list %s under trust.accounts with a syncRole that these credentials may assume",
			got,
			target.Account,
			target.Account,
		)
	}
	i.accounts[target.Account] = a
	return a, nil
}

// chained reports whether IAM must assume the account's sync role. Credentials that
// are that role already, through a web identity, may as a rule not assume it again.
func (i *IAM) chained(ctx context.Context, cfg aws.Config, account string) (bool, error) {
	role := i.syncRoles[account]
	if role.IsZero() {
		return false, nil
	}
	identity, err := sts.NewFromConfig(cfg, SignForEndpoint).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return false, normalizeError(err)
	}
	// A session names its role without the path; role names are unique without it.
	session := fmt.Sprintf("arn:%s:sts::%s:assumed-role/%s/", role.Partition, role.Account, role.RoleName())
	return !strings.HasPrefix(aws.ToString(identity.Arn), session), nil
}

// SignForEndpoint makes a client of STS sign for the region of its endpoint, where one
// is configured (AWS_ENDPOINT_URL_STS): the SDK would sign for the workspace's.
func SignForEndpoint(o *sts.Options) {
	o.Region = policy.SigningRegion(aws.ToString(o.BaseEndpoint), o.Region)
}

// signIAMForEndpoint is [SignForEndpoint] for IAM (AWS_ENDPOINT_URL_IAM).
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

// paced makes a client keep the account's pace.
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
		// Not among the SDK's own, though IAM says of it: try again.
		o.Retryables = append(o.Retryables, retry.RetryableErrorCode{Codes: map[string]struct{}{
			(*types.ConcurrentModificationException)(nil).ErrorCode(): {},
		}})
	})
}

// Check makes sure that the credentials are the account's.
func (i *IAM) Check(ctx context.Context, target plan.Target) error {
	_, err := i.open(ctx, target)
	return err
}

// Observe reads the account's provider and the roles that the target names. What
// fails is in [plan.Account.Problem], so that one account does not hold up the
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

// References completes an observation for the removal of everything: it looks
// through the trust documents of all the account's roles for the provider.
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
			// Whatever the statement is: that the name occurs is reason enough.
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

// provider is nil where there is none.
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

// role is nil where there is none, and lacks its permission document.
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

// roleOf is what IAM says of a role. Lists leave out tags and boundary.
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

// permissions is empty where the role has no policy of our name.
func (a *account) permissions(ctx context.Context, role string) (string, error) {
	out, err := a.iam.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &role, PolicyName: aws.String(plan.PolicyName)})
	if missing(err) {
		return "", nil
	}
	if err != nil {
		return "", normalizeError(err)
	}
	document, err := url.PathUnescape(aws.ToString(out.PolicyDocument))
	if err != nil {
		return "", fmt.Errorf("GetRolePolicy: document of %s: %w", role, err)
	}
	return document, nil
}

// missing goes by the code: the SDK knows the type only where the API's model
// lists it, and CreateRole's does not, for a boundary that is not there.
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
