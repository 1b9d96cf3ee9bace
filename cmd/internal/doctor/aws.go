package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/amp/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/ampbridge/ampbridge/cmd/internal/awsclient"
	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// credentialsTimeout bounds the search for credentials: the SDK tries those of an
// EC2 instance last.
const credentialsTimeout = 5 * time.Second

// caller is the AWS identity of the user of doctor.
type caller struct {
	config  aws.Config
	account string
	arn     string
	// missing is why there is no identity, and fix is what to do about it; empty: there is one.
	missing string
	fix     check.Fix
}

// callerIdentity returns the identity of the credentials that the SDK finds on this machine.
func callerIdentity(ctx context.Context, region string) caller {
	cfg, err := awsclient.Config(ctx, config.WithDefaultRegion(region))
	if err != nil {
		return caller{missing: "the AWS configuration of this machine cannot be used: " + err.Error(),
			fix: check.NewFix("correct AWS_PROFILE, or the files in ~/.aws", check.Command{"aws", "configure", "list"})}
	}
	bounded, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	if _, err := cfg.Credentials.Retrieve(bounded); err != nil {
		missing := "there are no AWS credentials on this machine"
		lacking, _ := errors.AsType[awsclient.CredentialsError](err)
		if lacking.Cause != nil && bounded.Err() == nil {
			missing = "the AWS credentials of this machine cannot be read: " + strings.TrimPrefix(refusal(lacking.Cause).Text, noAnswerText)
		}
		return caller{missing: missing, fix: logIn}
	}
	out, err := sts.NewFromConfig(cfg, awsiam.SignForEndpoint).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		r := refusal(err)
		if r.NoAnswer() {
			return caller{missing: "AWS did not answer this machine: " + strings.TrimPrefix(r.Text, noAnswerText),
				fix: check.NewFix("check this machine's network, its proxy (HTTPS_PROXY), and AWS_ENDPOINT_URL")}
		}
		return caller{missing: "AWS refuses the credentials of this machine: " + r.String(), fix: logIn}
	}
	return caller{config: cfg, account: aws.ToString(out.Account), arn: aws.ToString(out.Arn)}
}

var logIn = check.NewFix("log in to AWS, or name a profile that is logged in (AWS_PROFILE)", check.Command{"aws", "sso", "login"})

// noAnswerText is the start of a refusal's text if AWS did not answer.
const noAnswerText = "no answer: "

// refusal returns AWS's error, or why AWS did not answer.
func refusal(err error) check.Refusal {
	var response *smithyhttp.ResponseError
	r := check.Refusal{}
	if errors.As(err, &response) && response.Response != nil {
		r.Status = response.HTTPStatusCode()
	}
	if answer, ok := errors.AsType[smithy.APIError](err); ok {
		r.Code, r.Text = answer.ErrorCode(), answer.ErrorMessage()
		return r
	}
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	r.Text = noAnswerText + err.Error()
	return r
}

// checkAWS checks the provider, the roles and the workspaces. Then it gets a session and
// writes a sample, as a pod does.
func (x *runner) checkAWS(ctx context.Context) {
	me := callerIdentity(ctx, x.policy.Destinations[0].Workspace.Region)
	inspectors := map[string]*awsiam.Inspector{}
	for _, d := range x.policy.Destinations {
		account := x.policy.Role(d).Account
		if _, done := inspectors[account]; !done {
			inspectors[account] = x.checkAccount(ctx, me, d)
		}
		x.checkWorkspace(ctx, me, d)
		roles := x.rolesOf(d)
		for _, r := range roles {
			x.checkRole(ctx, inspectors[account], r)
		}
		if len(roles) == 0 {
			x.checks.Exclude(check.About{Destination: d.Name, Account: account}, "no checked service account has a role for it",
				check.RoleExists, check.TrustDocument, check.Permissions, check.Boundary)
		}
	}
	for _, s := range x.subjects {
		for _, d := range s.destinations {
			x.checkSession(ctx, s, d)
		}
	}
	for _, d := range x.policy.Destinations {
		x.checkQuery(ctx, me, d)
	}
	for _, s := range x.subjects {
		for _, d := range s.destinations {
			x.checkWrite(ctx, s, d)
			x.checkRead(ctx, s, d)
		}
	}
}

// managed reports whether sync manages the role of d.
func (x *runner) managed(d policy.Destination) bool {
	return x.policy.Trust.Manage == policy.ManageRoles && d.Role.IsZero()
}

// target returns the account of a destination's role, with the ARN of the cluster's provider in it.
func (x *runner) target(d policy.Destination) plan.Target {
	role := x.policy.Role(d)
	return plan.Target{Account: role.Account, Region: d.Workspace.Region, Provider: x.issuer.ProviderARN(role.Partition, role.Account)}
}

// checkAccount checks an account and the cluster's provider in it. It returns nil if the
// account cannot be read.
func (x *runner) checkAccount(ctx context.Context, me caller, d policy.Destination) *awsiam.Inspector {
	target := x.target(d)
	about := check.About{Account: target.Account}
	var inspector *awsiam.Inspector
	x.checks.Run(check.Account, about, func() check.Finding {
		if me.missing != "" {
			return unproven(me.fix, "%s", me.missing)
		}
		var err error
		if inspector, err = awsiam.New(nil).Inspect(ctx, target); err == nil {
			return passed("as %s", me.arn)
		}
		first := err
		if inspector, err = awsiam.New(x.policy.Trust.Accounts).Inspect(ctx, target); err == nil {
			return passed("as the account's syncRole, assumed by %s", me.arn)
		}
		return skipped("%v", first)
	})
	if inspector == nil {
		x.checks.Skip(about, "the account cannot be read", check.OIDCProvider)
		return nil
	}
	if x.issuer == "" {
		x.checks.Skip(about, "the issuer is not known", check.OIDCProvider)
		return inspector
	}
	x.checks.Run(check.OIDCProvider, about, func() check.Finding { return x.provider(ctx, inspector, target, d) })
	return inspector
}

func (x *runner) provider(ctx context.Context, i *awsiam.Inspector, target plan.Target, d policy.Destination) check.Finding {
	found, err := i.Provider(ctx, target.Provider)
	if err != nil {
		return skipped("%v", err)
	}
	state := check.ProviderState{}
	if found != nil {
		state = check.ProviderState{Exists: true, URL: found.URL, Audiences: found.Audiences, Thumbprints: found.Thumbprints}
	} else if state.Others, err = i.Providers(ctx); err != nil {
		// The other providers only make the fix more exact.
		state.Others = nil
	}
	fix := x.syncFix()
	if !x.managed(d) {
		create := check.Command{
			"aws",
			"iam",
			"create-open-id-connect-provider",
			"--url",
			string(x.issuer),
			"--client-id-list",
			x.policy.Token.Audience,
		}
		if !x.published.Public && x.published.Thumbprint != "" {
			create = append(create, "--thumbprint-list", x.published.Thumbprint)
		}
		fix = check.NewFix("register the issuer (with Terraform: ampbridge plan -o terraform)", create)
	}
	return check.Provider(target.Provider, x.policy.Token.Audience, state, x.published, fix)
}

// checkRole checks a role and its trust, permission and boundary documents.
func (x *runner) checkRole(ctx context.Context, i *awsiam.Inspector, r destinationRole) {
	arn, d, about := r.arn, r.destination, r.about
	if i == nil {
		x.checks.Skip(about, "the account cannot be read", check.RoleExists, check.TrustDocument, check.Permissions, check.Boundary)
		return
	}
	var role *plan.Role
	x.checks.Run(check.RoleExists, about, func() (f check.Finding) {
		role, f = x.role(ctx, i, r)
		return f
	})
	for _, s := range r.subjects {
		about := x.between(s, d)
		if role == nil {
			x.checks.Skip(about, "the role cannot be read", check.TrustDocument)
			continue
		}
		x.checks.Run(check.TrustDocument, about, func() check.Finding { return x.trusts(r, role, s) })
	}
	if role == nil {
		x.checks.Skip(about, "the role cannot be read", check.Permissions, check.Boundary)
		return
	}
	x.checks.Run(check.Permissions, about, func() check.Finding {
		policies, err := i.Policies(ctx, arn.RoleName())
		if err != nil {
			return skipped("%v", err)
		}
		own := ""
		if x.managed(d) {
			own = plan.PolicyName
		}
		return check.Permission(policies, own, d, x.fixPermission(r))
	})
	x.checks.Run(check.Boundary, about, func() check.Finding { return x.boundary(ctx, i, role, d) })
}

// role reads a role and judges whether it is the wanted one. The role is nil if it is not, or if
// it cannot be read.
func (x *runner) role(ctx context.Context, i *awsiam.Inspector, r destinationRole) (*plan.Role, check.Finding) {
	role, err := i.Role(ctx, r.arn.RoleName())
	switch {
	case err != nil:
		return nil, skipped("%v", err)
	case role == nil:
		return nil, failed(x.fixRole(r), "there is no role %s", r.arn)
	case role.ARN != r.arn:
		return nil, failed(
			check.NewFix("rename the destination, delete that role, or set it as the destination's role"),
			"%s does not exist: %s has the same name in another path, and a name is unique in its account",
			r.arn,
			role.ARN,
		).Comparing("ARN", r.arn.String(), role.ARN.String())
	}
	if x.managed(r.destination) {
		if f, foreign := x.foreignRole(role); foreign {
			return role, f
		}
		return role, check.RoleTags(r.arn, plan.ForeignTags(role.Tags, x.policy.TagKeys()))
	}
	note := ""
	if wanted := time.Duration(x.policy.Session.Duration); role.MaxSession > 0 && role.MaxSession < wanted {
		// This is no fault: the sidecar then requests sessions of one hour.
		note = fmt.Sprintf("; it allows sessions of %s, and session.duration is %s", check.Span(role.MaxSession), check.Span(wanted))
	}
	return role, passed("%s%s", r.arn, note)
}

// trusts judges whether the role's trust document lets the subject in.
func (x *runner) trusts(r destinationRole, role *plan.Role, s *subject) check.Finding {
	if x.issuer == "" {
		return skipped("the issuer is not known")
	}
	want := check.WantedTrust{
		Provider: x.target(r.destination).Provider,
		Issuer:   x.issuer,
		Audience: x.policy.Token.Audience,
		Subject:  s.Subject,
		Now:      x.Now(),
	}
	return check.Trust(role.Trust, want, x.fixTrust(r, role, want))
}

// owner returns the value of the owner's tag on what sync creates; empty: the issuer is not known.
func (x *runner) owner() string {
	if x.issuer == "" {
		return ""
	}
	return policy.Owner(x.policy.Cluster.Name, x.issuer)
}

// foreignRole returns a failure if sync did not create the role, because sync never changes such a role.
func (x *runner) foreignRole(role *plan.Role) (check.Finding, bool) {
	switch owner := role.Tags[plan.TagOwner]; {
	case x.owner() == "" || owner == x.owner():
		return check.Finding{}, false
	case owner == "":
		return failed(check.NewFix("rename the destination, delete that role, or set it as the destination's role and manage it yourself"),
			"%s was not created by sync: it has no tag %s", role.ARN, plan.TagOwner), true
	default:
		return failed(check.NewFix("choose another cluster.name, or delete that role if its cluster is gone"),
			"%s belongs to another cluster of the name %s, with another issuer (tag %s)", role.ARN,
			role.Tags[plan.TagCluster], plan.TagOwner), true
	}
}

func (x *runner) boundary(ctx context.Context, i *awsiam.Inspector, role *plan.Role, d policy.Destination) check.Finding {
	wanted := ""
	if x.managed(d) {
		wanted = x.policy.Boundary(role.ARN.Partition, role.ARN.Account).String()
	}
	state := check.BoundaryState{ARN: role.Boundary}
	if role.Boundary != "" {
		document, err := i.Document(ctx, role.Boundary)
		if err != nil {
			state.Problem = err.Error()
		} else {
			state.Document = &document
		}
	}
	return check.Bounds(state, wanted, d, x.syncFix(), x.source.bootstrap(role.ARN.Account))
}

// foreign returns why the caller cannot read a workspace; empty: the caller can.
func (me caller) foreign(d policy.Destination) string {
	if me.missing == "" && me.account != d.Workspace.Account {
		return fmt.Sprintf("these credentials are for account %s, the workspace is in %s", me.account, d.Workspace.Account)
	}
	return me.missing
}

// checkWorkspace and checkQuery use the caller's own credentials, because a writer's role may
// not read.
func (x *runner) checkWorkspace(ctx context.Context, me caller, d policy.Destination) {
	about := check.About{Destination: d.Name}
	if reason := me.foreign(d); reason != "" {
		x.checks.Skip(about, reason, check.Workspace)
		return
	}
	x.checks.Run(check.Workspace, about, func() check.Finding { return describeWorkspace(ctx, me, d) })
}

func (x *runner) checkQuery(ctx context.Context, me caller, d policy.Destination) {
	about := check.About{Destination: d.Name}
	if reason := me.foreign(d); reason != "" {
		x.checks.Skip(about, reason, check.Query)
		return
	}
	x.checks.Run(check.Query, about, func() check.Finding {
		if refused := queryOf(ctx, me.config.Credentials, d); refused != nil {
			return x.refusedBy(ctx, check.Query, about, d, *refused, check.RefusedQuery)
		}
		return passed("%s answers", d.Workspace.ID())
	})
}

func describeWorkspace(ctx context.Context, me caller, d policy.Destination) check.Finding {
	client := amp.NewFromConfig(me.config, func(o *amp.Options) { o.Region = d.Workspace.Region })
	out, err := client.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: aws.String(d.Workspace.ID())})
	elsewhere := check.NewFix("copy the workspace's whole ARN into the policy, from its own region",
		check.Command{"aws", "amp", "list-workspaces", "--region", d.Workspace.Region})
	if err != nil {
		switch r := refusal(err); {
		case r.Status == http.StatusNotFound, r.Code == "InvalidSignatureException":
			return failed(elsewhere, "there is no %s in %s of account %s: %s", d.Workspace.ID(), d.Workspace.Region, d.Workspace.Account, r)
		default:
			return skipped("the workspace cannot be described: %s", r)
		}
	}
	if got := aws.ToString(out.Workspace.Arn); got != d.Workspace.String() {
		return failed(elsewhere, "%s is %s, not %s", d.Workspace.ID(), got, d.Workspace).Comparing("ARN", d.Workspace.String(), got)
	}
	switch status := out.Workspace.Status.StatusCode; status {
	case types.WorkspaceStatusCodeActive:
	case types.WorkspaceStatusCodeUpdating:
		return passed("%s is being updated, and is in service", d.Workspace.ID())
	case types.WorkspaceStatusCodeCreating:
		return failed(check.NewFix("wait until the workspace is active"), "%s is %s", d.Workspace.ID(), status)
	default:
		return failed(check.NewFix("create another workspace, and copy its whole ARN into the policy"), "%s is %s", d.Workspace.ID(), status)
	}
	return passed("%s is active", d.Workspace.ID())
}
