package awsiam_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// state is what the account has, as text.
func (f *fixture) state() string {
	f.Helper()
	var lines []string
	roles, err := f.admin().ListRoles(f.ctx, &iam.ListRolesInput{})
	f.must(nil, err)
	for _, r := range roles.Roles {
		role, err := f.admin().GetRole(f.ctx, &iam.GetRoleInput{RoleName: r.RoleName})
		f.must(nil, err)
		policies, err := f.admin().ListRolePolicies(f.ctx, &iam.ListRolePoliciesInput{RoleName: r.RoleName})
		f.must(nil, err)
		lines = append(
			lines,
			fmt.Sprint(
				*r.Arn,
				*role.Role.AssumeRolePolicyDocument,
				len(role.Role.Tags),
				role.Role.PermissionsBoundary != nil,
				policies.PolicyNames,
			),
		)
	}
	providers, err := f.admin().ListOpenIDConnectProviders(f.ctx, &iam.ListOpenIDConnectProvidersInput{})
	f.must(nil, err)
	for _, p := range providers.OpenIDConnectProviderList {
		lines = append(lines, *p.Arn)
	}
	return strings.Join(lines, "\n")
}

// The process ends after its first call, its second, and so on; the next run
// leaves what an undisturbed one does.
func TestKilledAtEveryCall(t *testing.T) {
	foreign := (*fixture).makeAdmins
	for _, c := range []struct {
		name    string
		run     func(context.Context, *fixture, *awsiam.IAM) error
		prepare func(*fixture)
	}{
		{"from nothing", runOnce, foreign},
		{"a destination renamed, everything drifted", runOnce, func(f *fixture) {
			foreign(f)
			f.converge("prometheus", "prometheus-old")
			f.policy.Destinations[0].Name, f.policy.Grants[0].Destinations = "renamed", []string{"renamed"}
			f.must(f.admin().DeleteOpenIDConnectProvider(f.ctx,
				&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: new(f.account.ProviderARN(issuer))}))
		}},
		{"removal", removeOnce, func(f *fixture) {
			foreign(f)
			f.converge("prometheus")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			undisturbed := newFixture(t, policyText)
			c.prepare(undisturbed)
			calls := 0
			i := awsiam.New(nil)
			i.OnCall = func(string, string) { calls++ }
			undisturbed.must(nil, c.run(undisturbed.ctx, undisturbed, i))
			want := undisturbed.state()
			for kill := 1; kill <= calls; kill++ {
				f := newFixture(t, policyText)
				c.prepare(f)
				ctx, cancel := context.WithCancel(f.ctx)
				n := 0
				killed := awsiam.New(nil)
				killed.OnCall = func(string, string) {
					if n++; n == kill {
						cancel()
					}
				}
				if err := c.run(ctx, f, killed); err == nil && kill < calls {
					t.Errorf("killed at call %d of %d: no error", kill, calls)
				}
				cancel()
				f.must(nil, c.run(f.ctx, f, awsiam.New(nil)))
				if got := f.state(); got != want {
					t.Errorf("killed at call %d of %d:\n%s\nwant:\n%s", kill, calls, got, want)
				}
			}
			t.Logf("killed at each of %d calls", calls)
		})
	}
}

// runOnce applies a plan, as one process does; the first error ends it.
func runOnce(ctx context.Context, f *fixture, i *awsiam.IAM) error {
	observed := map[string]plan.Account{}
	for _, target := range plan.Targets(f.policy, f.issuer) {
		observed[target.Account] = i.Observe(ctx, target)
	}
	return applied(
		ctx,
		i,
		plan.Compute(plan.Input{Policy: f.policy, Issuer: f.issuer, Accounts: observed, ServiceAccounts: []plan.ServiceAccount{
			{Namespace: "monitoring", Name: "prometheus", Injection: policy.InjectionEnabled},
		}}),
	)
}

func removeOnce(ctx context.Context, f *fixture, i *awsiam.IAM) error {
	observed := map[string]plan.Account{}
	for _, target := range plan.RemovalTargets(f.policy, f.issuer) {
		observed[target.Account] = i.References(ctx, target, i.Observe(ctx, target))
	}
	return applied(ctx, i, plan.Remove(f.policy, f.issuer, observed))
}

func applied(ctx context.Context, i *awsiam.IAM, p plan.Plan) error {
	for _, c := range p.Changes {
		if err := i.Apply(ctx, c); err != nil {
			return err
		}
	}
	if len(p.Refusals) > 0 {
		return errors.New(p.Refusals[0].Message)
	}
	return ctx.Err()
}

func TestDeletionsCheckTheOwner(t *testing.T) {
	f := converged(t)
	i := awsiam.New(nil)
	observed := map[string]plan.Account{}
	for _, target := range plan.RemovalTargets(f.policy, f.issuer) {
		observed[target.Account] = i.References(f.ctx, target, i.Observe(f.ctx, target))
	}
	p := plan.Remove(f.policy, f.issuer, observed)
	if len(p.Changes) != 3 {
		t.Fatalf("plan:\n%s", p)
	}
	stolen := []types.Tag{{Key: new(plan.TagOwner), Value: new("other")}}
	f.must(f.admin().TagRole(f.ctx, &iam.TagRoleInput{RoleName: new(roleName), Tags: stolen}))
	f.must(
		f.admin().TagOpenIDConnectProvider(
			f.ctx,
			&iam.TagOpenIDConnectProviderInput{OpenIDConnectProviderArn: new(f.account.ProviderARN(issuer)), Tags: stolen},
		),
	)
	before := f.state()
	for _, c := range p.Changes {
		if err := i.Apply(f.ctx, c); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, want a refusal", c.Title(), err)
		}
	}
	if got := f.state(); got != before {
		t.Errorf("now:\n%s\nbefore:\n%s", got, before)
	}
}

func TestCallsAreCounted(t *testing.T) {
	f := newFixture(t, policyText)
	f.cloud.Fail("iam:GetOpenIDConnectProvider", awstest.Throttle.Times(2))
	count := map[string]int{}
	i := awsiam.New(nil)
	i.OnCall = func(operation, result string) { count[operation+" "+result]++ }
	f.must(nil, runOnce(f.ctx, f, i))
	want := map[string]int{
		"GetOpenIDConnectProvider Throttling": 2, "GetOpenIDConnectProvider NoSuchEntity": 1, "GetRole NoSuchEntity": 1,
		"ListRoles ok": 1, "CreateOpenIDConnectProvider ok": 1, "CreateRole ok": 1, "PutRolePolicy ok": 1,
	}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Error(diff)
	}
}
