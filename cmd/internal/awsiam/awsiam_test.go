package awsiam_test

import (
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/policytest"
)

func TestRunMakesWhatTokensNeedAndTheNextReadsOnly(t *testing.T) {
	f := converged(t)
	if _, writes := f.calls(0); writes != 3 {
		t.Errorf("the first run made %d writes, want 3: provider, role, permission document", writes)
	}
	before := len(f.cloud.Calls())
	f.converge("prometheus")
	if reads, writes := f.calls(before); writes != 0 || reads != 2*6 {
		t.Errorf("two observations in sync made %d reads and %d writes, want 6 reads each", reads, writes)
	}
	f.wantAssume("prometheus", true)
	f.wantAssume("default", false)
}

func TestDriftByHandIsCorrected(t *testing.T) {
	for _, c := range []struct {
		name  string
		drift func(*fixture)
	}{
		{"trust opened", func(f *fixture) {
			f.must(f.admin().UpdateAssumeRolePolicy(f.ctx,
				&iam.UpdateAssumeRolePolicyInput{RoleName: new(roleName), PolicyDocument: new(
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`)}))
		}},
		{"boundary removed", func(f *fixture) {
			f.must(f.admin().DeleteRolePermissionsBoundary(f.ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: new(roleName)}))
		}},
		{"permissions widened", func(f *fixture) {
			f.must(f.admin().PutRolePolicy(f.ctx, &iam.PutRolePolicyInput{RoleName: new(roleName), PolicyName: new(plan.PolicyName),
				PolicyDocument: new(
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:*","Resource":"*"}]}`),
			}))
		}},
		{"session shortened", func(f *fixture) {
			f.must(f.admin().UpdateRole(f.ctx, &iam.UpdateRoleInput{RoleName: new(roleName), MaxSessionDuration: new(int32(3600))}))
		}},
		{"role tag changed", func(f *fixture) {
			f.must(f.admin().TagRole(f.ctx, &iam.TagRoleInput{RoleName: new(roleName),
				Tags: []types.Tag{{Key: new(plan.TagDestination), Value: new("x")}}}))
		}},
		{"audience removed", func(f *fixture) {
			f.must(f.admin().RemoveClientIDFromOpenIDConnectProvider(f.ctx, &iam.RemoveClientIDFromOpenIDConnectProviderInput{
				OpenIDConnectProviderArn: new(f.account.ProviderARN(issuer)), ClientID: new("sts.amazonaws.com")}))
		}},
		{"provider deleted", func(f *fixture) {
			f.must(f.admin().DeleteOpenIDConnectProvider(f.ctx,
				&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: new(f.account.ProviderARN(issuer))}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := converged(t)
			before := len(f.cloud.Calls())
			c.drift(f)
			f.converge("prometheus")
			if _, writes := f.calls(before); writes != 2 {
				t.Errorf("%d writes, want 2: the drift and its correction", writes)
			}
			f.wantAssume("prometheus", true)
		})
	}
}

func TestRoleIsClosedWhenNoGrantIsLeft(t *testing.T) {
	f := converged(t)
	f.policy.Grants[0].ServiceAccounts[0] = "other"
	f.converge()
	f.wantAssume("prometheus", false)
}

func TestRoleOfADestinationThatIsGone(t *testing.T) {
	f := converged(t)
	// What others made on our path is none of ours.
	f.makeAdmins()
	gone := f.policy.Destinations[0]
	f.policy.Destinations[0].Name, f.policy.Grants[0].Destinations = "renamed", []string{"renamed"}
	before := len(f.cloud.Calls())
	f.converge("prometheus")
	if _, writes := f.calls(before); writes != 3 {
		t.Errorf("%d writes, want 3: the old role closed, the new one made with its permissions", writes)
	}
	f.wantAssume("prometheus", true)
	f.policy.Destinations[0] = gone
	f.wantAssume("prometheus", false)
}

func TestClustersThatShareANameOrAnIssuer(t *testing.T) {
	for _, c := range []struct {
		name   string
		become func(*fixture)
		want   string
	}{
		{"one name, two issuers", func(f *fixture) { f.issuer += "/other" }, `belongs to another cluster of the name "dev"`},
		{"one issuer, two names", func(f *fixture) { f.policy.Cluster.Name = "prod" }, `belongs to cluster "dev", which has the same issuer`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := converged(t)
			c.become(f)
			p := f.plan(awsiam.New(nil), "prometheus")
			if len(p.Changes) != 0 || len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Message, c.want) {
				t.Errorf("plan:\n%s", p)
			}
		})
	}
}

func TestOwnerIsReadAgainBeforeEveryWrite(t *testing.T) {
	const foreignTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},` +
		`"Action":"sts:AssumeRole"}]}`
	for _, c := range []struct {
		name   string
		synced bool // a run was there before the plan
		plan   func(*fixture)
		steal  func(*fixture)
		change plan.Call
	}{
		{"a role made by somebody else", false, nil, func(f *fixture) {
			f.must(f.admin().CreateRole(f.ctx, &iam.CreateRoleInput{RoleName: new(strings.ToUpper(roleName)),
				AssumeRolePolicyDocument: new(foreignTrust)}))
		}, plan.CreateRole},
		{"a provider made by somebody else", false, nil, func(f *fixture) {
			f.must(f.admin().CreateOpenIDConnectProvider(f.ctx, &iam.CreateOpenIDConnectProviderInput{Url: new(issuer)}))
		}, plan.CreateProvider},
		{"a role that changed hands", true, func(f *fixture) {
			f.must(f.admin().DeleteRolePermissionsBoundary(f.ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: new(roleName)}))
		}, func(f *fixture) {
			f.must(f.admin().TagRole(f.ctx, &iam.TagRoleInput{RoleName: new(roleName),
				Tags: []types.Tag{{Key: new(plan.TagOwner), Value: new("other")}}}))
		}, plan.PutBoundary},
		{"a provider that changed hands", true, func(f *fixture) {
			f.must(f.admin().RemoveClientIDFromOpenIDConnectProvider(f.ctx, &iam.RemoveClientIDFromOpenIDConnectProviderInput{
				OpenIDConnectProviderArn: new(f.account.ProviderARN(issuer)), ClientID: new("sts.amazonaws.com")}))
		}, func(f *fixture) {
			f.must(f.admin().TagOpenIDConnectProvider(f.ctx,
				&iam.TagOpenIDConnectProviderInput{OpenIDConnectProviderArn: new(f.account.ProviderARN(issuer)),
					Tags: []types.Tag{{Key: new(plan.TagOwner), Value: new("other")}}}))
		}, plan.AddAudience},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, policyText)
			if c.synced {
				f.converge("prometheus")
				c.plan(f)
			}
			i := awsiam.New(nil)
			p := f.plan(i, "prometheus")
			c.steal(f)
			before := len(f.cloud.Calls())
			for _, change := range p.Changes {
				if change.Call != c.change {
					continue
				}
				if err := i.Apply(f.ctx, change); err == nil || !strings.Contains(err.Error(), "refused") {
					t.Errorf("%s: %v, want a refusal", change.Title(), err)
				}
			}
			for _, call := range f.cloud.Calls()[before:] {
				if call.Code == "" && !strings.HasPrefix(call.Action, "Get") {
					t.Errorf("%s was made on what is somebody else's", call.Action)
				}
			}
		})
	}
}

func TestBoundaryThatIsNotThere(t *testing.T) {
	for _, synced := range []bool{false, true} {
		f := newFixture(t, policyText)
		if synced {
			f.converge("prometheus")
		}
		f.policy.Trust.PermissionsBoundary.Resource = "policy/none"
		i := awsiam.New(nil)
		var failed []string
		for _, change := range f.plan(i, "prometheus").Changes {
			if err := i.Apply(f.ctx, change); err != nil && !change.Boundary.IsZero() {
				failed = append(failed, err.Error())
			}
		}
		if len(failed) != 1 ||
			!strings.Contains(
				failed[0],
				"has no policy arn:aws:iam::"+accountID+":policy/none: create it there, or name another as "+
					"trust.permissionsBoundary",
			) {
			t.Errorf("synced before: %v: %q", synced, failed)
		}
	}
}

func TestFaultsOfAWSAreOutlasted(t *testing.T) {
	for _, c := range []struct {
		name, target string
		fault        awstest.Fault
	}{
		{"throttled", "iam:*", awstest.Throttle.Times(2)},
		{"server errors", "iam:*", awstest.ServerError.Times(2)},
		{"reset", "sts:*", awstest.Refuse.Times(2)},
		{"the answer of CreateRole is lost", "iam:CreateRole", awstest.Lose.Times(1)},
		{"the answer of CreateOpenIDConnectProvider is lost", "iam:CreateOpenIDConnectProvider", awstest.Lose.Times(1)},
		{"the answer of PutRolePolicy is lost", "iam:PutRolePolicy", awstest.Lose.Times(1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, policyText)
			injection := f.cloud.Fail(c.target, c.fault)
			f.converge("prometheus")
			if injection.Hits() == 0 {
				t.Error("the fault struck no call")
			}
		})
	}
}

func TestRoleThatIsNotVisibleYet(t *testing.T) {
	f := newFixture(t, policyText)
	f.cloud.SetReadDelay(time.Second)
	i := awsiam.New(nil)
	f.apply(i, f.plan(i, "prometheus"))
	f.cloud.SetReadDelay(0)
	if again := f.plan(i, "prometheus"); !again.InSync() {
		t.Errorf("not in sync:\n%s", again)
	}
}

func TestAccounts(t *testing.T) {
	const other = "444455556666"
	elsewhere := strings.ReplaceAll(policyText, accountID, other)

	t.Run("credentials of another account change nothing", func(t *testing.T) {
		f := newFixture(t, elsewhere)
		f.cloud.Setenv(f, f.cloud.Account(accountID).AdminCredentials())
		p := f.plan(awsiam.New(nil), "prometheus")
		if len(p.Changes) != 0 || len(p.Refusals) != 1 ||
			!strings.Contains(p.Refusals[0].Message, "the credentials are of account "+accountID+", not of "+other) {
			t.Errorf("plan:\n%s", p)
		}
	})
	t.Run("a sync role reaches the account", func(t *testing.T) {
		f := newFixture(t, elsewhere)
		f.makeSyncRole()
		f.cloud.Setenv(f, f.cloud.Account(accountID).AdminCredentials())
		withRole := strings.Replace(
			elsewhere,
			"trust: {",
			`trust: {accounts: [{id: "444455556666", syncRole: "arn:aws:iam::444455556666:role/sync"}], `,
			1,
		)
		f.policy = policytest.Parse(t, withRole)
		f.converge("prometheus")
		f.wantAssume("prometheus", true)
		calls := f.cloud.Calls()
		if got := calls[len(calls)-2].Principal; got != "arn:aws:sts::444455556666:assumed-role/sync/ampbridge-sync" {
			t.Errorf("sync acted as %s", got)
		}
	})
	t.Run("another partition", func(t *testing.T) {
		f := newFixture(t, strings.NewReplacer("arn:aws:", "arn:aws-us-gov:", "eu-west-1", "us-gov-west-1").Replace(policyText))
		f.converge("prometheus")
	})
}

// Reports of the same failure are the same: no request ids, no counts.
func TestErrorsAreStable(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(*fixture)
		want  string
	}{
		{"denied", func(f *fixture) { f.cloud.Fail("iam:GetRole", awstest.Deny) }, "GetRole: AccessDenied: Access denied"},
		{"unknown credentials", func(f *fixture) {
			f.cloud.Setenv(f, awstest.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: "none"})
		}, "GetCallerIdentity: InvalidClientTokenId: The security token included in the request is invalid."},
		{"no credentials", func(f *fixture) { f.cloud.Setenv(f, awstest.Credentials{}) }, "no AWS credentials: "},
		{"a sync role that may not be assumed", func(f *fixture) {
			f.policy = policytest.Parse(f.T, strings.Replace(policyText, "trust: {", `trust: {accounts: [{id: "111122223333", syncRole: `+
				`"arn:aws:iam::111122223333:role/none"}], `, 1))
		}, "AssumeRole: AccessDenied: "},
		{"no program listens", func(f *fixture) { f.cloud.StopListening() }, "GetCallerIdentity: no answer from "},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, policyText)
			c.fault(f)
			var texts []string
			runs := 2
			if c.name == "no program listens" {
				runs = 1 // which takes all the attempts, with their pauses
			}
			for range runs {
				p := f.plan(awsiam.New(f.policy.Trust.Accounts), "prometheus")
				if len(p.Refusals) != 1 || len(p.Changes) != 0 {
					t.Fatalf("plan:\n%s", p)
				}
				texts = append(texts, p.Refusals[0].Message)
			}
			if texts[0] != texts[len(texts)-1] || !strings.HasPrefix(texts[0], c.want) {
				t.Errorf("got %q, want them equal and to begin with %q", texts, c.want)
			}
			if strings.Contains(strings.ToLower(texts[0]), "requestid") || strings.Contains(texts[0], "attempts") {
				t.Errorf("%q changes from run to run", texts[0])
			}
		})
	}
}
