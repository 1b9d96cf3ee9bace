package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// credentialsTimeout is for finding credentials: without any, the SDK asks for
// an instance's at last.
const credentialsTimeout = 5 * time.Second

// caller is whoever runs doctor, as AWS sees him; nil: nobody.
type caller struct {
	config  aws.Config
	account string
	arn     string
	// why there is none.
	missing string
}

// callerIdentity finds the SDK's usual credentials.
func callerIdentity(ctx context.Context, region string) caller {
	cfg, err := config.LoadDefaultConfig(ctx, config.WithDefaultRegion(region))
	if err != nil {
		return caller{missing: "AWS configuration: " + err.Error()}
	}
	bounded, cancel := context.WithTimeout(ctx, credentialsTimeout)
	defer cancel()
	if _, err := cfg.Credentials.Retrieve(bounded); err != nil {
		return caller{missing: "no AWS credentials here: log in (aws sso login), or set AWS_PROFILE"}
	}
	out, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, &sts.GetCallerIdentityInput{})
	if err != nil {
		return caller{missing: "the AWS credentials here are refused: " + refusal(err).String()}
	}
	return caller{config: cfg, account: aws.ToString(out.Account), arn: aws.ToString(out.Arn)}
}

// refusal is what AWS said, or why it said nothing.
func refusal(err error) check.Refusal {
	var answer smithy.APIError
	var response *smithyhttp.ResponseError
	r := check.Refusal{}
	if errors.As(err, &response) && response.Response != nil {
		r.Status = response.HTTPStatusCode()
	}
	if errors.As(err, &answer) {
		r.Code, r.Text = answer.ErrorCode(), answer.ErrorMessage()
		return r
	}
	for errors.Unwrap(err) != nil {
		err = errors.Unwrap(err)
	}
	r.Text = "no answer: " + err.Error()
	return r
}

// checkAWS looks at provider, roles and workspaces, and then goes the way that
// a pod goes.
func (x *runner) checkAWS(ctx context.Context) {
	me := callerIdentity(ctx, x.policy.Destinations[0].Workspace.Region)
	inspectors := map[string]*awsiam.Inspector{}
	for _, d := range x.policy.Destinations {
		account := x.policy.Role(d).Account
		if _, done := inspectors[account]; !done {
			inspectors[account] = x.checkAccount(ctx, me, d)
		}
		roles := x.rolesOf(d)
		for _, r := range roles {
			x.checkRole(ctx, inspectors[account], r)
		}
		if len(roles) == 0 {
			x.checks.LeaveOut(check.About{Destination: d.Name, Account: account}, "no service account that is looked at has a role for it",
				check.RoleExists, check.TrustDocument, check.Permissions, check.Boundary)
		}
	}
	for _, s := range x.subjects {
		for _, d := range s.destinations {
			x.checkSession(ctx, s, d)
		}
	}
	for _, d := range x.policy.Destinations {
		x.checkWorkspace(ctx, me, d)
	}
	for _, s := range x.subjects {
		for _, d := range s.destinations {
			x.checkWrite(ctx, s, d)
		}
	}
}

// managed tells whether sync keeps the role of d.
func (x *runner) managed(d policy.Destination) bool {
	return x.policy.Trust.Manage == policy.ManageRoles && d.Role.IsZero()
}

// target is the account of a destination's role.
func (x *runner) target(d policy.Destination) plan.Target {
	role := x.policy.Role(d)
	return plan.Target{Account: role.Account, Region: d.Workspace.Region, Provider: x.issuer.ProviderARN(role.Partition, role.Account)}
}

// checkAccount returns nil where the account cannot be read.
func (x *runner) checkAccount(ctx context.Context, me caller, d policy.Destination) *awsiam.Inspector {
	target := x.target(d)
	about := check.About{Account: target.Account}
	var inspector *awsiam.Inspector
	x.checks.Run(check.Account, about, func() check.Finding {
		if me.missing != "" {
			return skipped("%s", me.missing)
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
	seen := check.ProviderSeen{}
	if found != nil {
		seen = check.ProviderSeen{Exists: true, URL: found.URL, Audiences: found.Audiences, Thumbprints: found.Thumbprints}
	} else if seen.Others, err = i.Providers(ctx); err != nil {
		// The list only sharpens the mend.
		seen.Others = nil
	}
	mend := x.source.sync()
	if !x.managed(d) {
		create := check.Command{"aws", "iam", "create-open-id-connect-provider", "--url", string(x.issuer), "--client-id-list", x.policy.Token.Audience}
		if !x.published.Public && x.published.Thumbprint != "" {
			create = append(create, "--thumbprint-list", x.published.Thumbprint)
		}
		mend = check.NewFix("register the issuer", create)
	}
	return check.Provider(target.Provider, x.policy.Token.Audience, seen, x.published, mend)
}

// checkRole looks at a role and at its documents.
func (x *runner) checkRole(ctx context.Context, i *awsiam.Inspector, r destinationRole) {
	arn, d, about := r.arn, r.destination, r.about
	if i == nil {
		x.checks.Skip(about, "the account cannot be read", check.RoleExists, check.TrustDocument, check.Permissions, check.Boundary)
		return
	}
	var role *plan.Role
	x.checks.Run(check.RoleExists, about, func() check.Finding {
		var err error
		role, err = i.Role(ctx, arn.RoleName())
		switch {
		case err != nil:
			role = nil
			return skipped("%v", err)
		case role == nil:
			return failed(x.makeRole(r), "there is no role %s", arn)
		case role.ARN != arn:
			f := failed(check.NewFix("rename the destination, delete that role, or name it as the destination's role"), "the name is taken by %s, and names are unique whatever their path: %s is not there", role.ARN, arn)
			role = nil
			return f
		}
		return passed("%s", arn)
	})
	for _, s := range r.subjects {
		each := x.between(s, d)
		if role == nil {
			x.checks.Skip(each, "the role cannot be read", check.TrustDocument)
			continue
		}
		x.checks.Run(check.TrustDocument, each, func() check.Finding {
			if x.issuer == "" {
				return skipped("the issuer is not known")
			}
			want := check.Wanted{Provider: x.target(d).Provider, Issuer: x.issuer, Audience: x.policy.Token.Audience, Subject: s.Subject}
			return check.Trust(role.Trust, want, x.writeTrust(r, role, want))
		})
	}
	if role == nil {
		x.checks.Skip(about, "the role cannot be read", check.Permissions, check.Boundary)
		return
	}
	x.checks.Run(check.Permissions, about, func() check.Finding {
		documents, err := i.Policies(ctx, arn.RoleName())
		if err != nil {
			return skipped("%v", err)
		}
		return check.Permission(documents, d, x.writePermission(r))
	})
	x.checks.Run(check.Boundary, about, func() check.Finding { return x.boundary(ctx, i, role, d) })
}

func (x *runner) boundary(ctx context.Context, i *awsiam.Inspector, role *plan.Role, d policy.Destination) check.Finding {
	wanted := ""
	if x.managed(d) {
		wanted = x.policy.Boundary(role.ARN.Partition, role.ARN.Account).String()
	}
	seen := check.BoundarySeen{ARN: role.Boundary}
	if role.Boundary != "" {
		document, err := i.Document(ctx, role.Boundary)
		if err != nil {
			seen.Problem = err.Error()
		} else {
			seen.Document = &document
		}
	}
	return check.Bounds(seen, wanted, d, x.source.sync())
}

// checkWorkspace asks AMP with the caller's own credentials: a destination's
// role may not read.
func (x *runner) checkWorkspace(ctx context.Context, me caller, d policy.Destination) {
	about := check.About{Destination: d.Name}
	reason := me.missing
	if reason == "" && me.account != d.Workspace.Account {
		reason = fmt.Sprintf("these credentials are of account %s, the workspace is of %s", me.account, d.Workspace.Account)
	}
	if reason != "" {
		x.checks.Skip(about, reason, check.Workspace, check.Query)
		return
	}
	x.checks.Run(check.Workspace, about, func() check.Finding { return describeWorkspace(ctx, me, d) })
	x.checks.Run(check.Query, about, func() check.Finding {
		if refused := query(ctx, me.config.Credentials, d); refused != nil {
			return check.RefusedQuery(*refused, d)
		}
		return passed("%s answers", d.Workspace.ID())
	})
}

func describeWorkspace(ctx context.Context, me caller, d policy.Destination) check.Finding {
	client := amp.NewFromConfig(me.config, func(o *amp.Options) { o.Region = d.Workspace.Region })
	out, err := client.DescribeWorkspace(ctx, &amp.DescribeWorkspaceInput{WorkspaceId: aws.String(d.Workspace.ID())})
	elsewhere := check.NewFix("copy the workspace's whole ARN into the policy, from the region that it is in",
		check.Command{"aws", "amp", "list-workspaces", "--region", d.Workspace.Region})
	if err != nil {
		switch r := refusal(err); {
		case r.Status == http.StatusNotFound, r.Code == "InvalidSignatureException":
			return failed(elsewhere, "there is no %s in %s of account %s: %s", d.Workspace.ID(), d.Workspace.Region, d.Workspace.Account, r)
		default:
			return skipped("it cannot be described: %s", r)
		}
	}
	if got := aws.ToString(out.Workspace.Arn); got != d.Workspace.String() {
		return failed(elsewhere, "%s is %s, not %s", d.Workspace.ID(), got, d.Workspace)
	}
	if status := out.Workspace.Status.StatusCode; status != "ACTIVE" {
		return failed(check.NewFix("wait until the workspace is active"), "%s is %s", d.Workspace.ID(), status)
	}
	return passed("%s is active", d.Workspace.ID())
}
