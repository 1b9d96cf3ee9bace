package awsiam_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// state is what the account has, as text.
func (w *fixture) state() string {
	w.Helper()
	var lines []string
	roles, err := w.admin().ListRoles(w.ctx, &iam.ListRolesInput{})
	w.must(nil, err)
	for _, r := range roles.Roles {
		role, err := w.admin().GetRole(w.ctx, &iam.GetRoleInput{RoleName: r.RoleName})
		w.must(nil, err)
		policies, err := w.admin().ListRolePolicies(w.ctx, &iam.ListRolePoliciesInput{RoleName: r.RoleName})
		w.must(nil, err)
		lines = append(lines, fmt.Sprint(aws.ToString(r.Arn), aws.ToString(role.Role.AssumeRolePolicyDocument), len(role.Role.Tags), role.Role.PermissionsBoundary != nil, policies.PolicyNames))
	}
	providers, err := w.admin().ListOpenIDConnectProviders(w.ctx, &iam.ListOpenIDConnectProvidersInput{})
	w.must(nil, err)
	for _, p := range providers.OpenIDConnectProviderList {
		lines = append(lines, aws.ToString(p.Arn))
	}
	return strings.Join(lines, "\n")
}

// The process ends after its first call, its second, and so on; the next run
// leaves what an undisturbed one does.
func TestKilledAtEveryCall(t *testing.T) {
	foreign := func(w *fixture) {
		w.must(w.admin().CreateRole(w.ctx, &iam.CreateRoleInput{RoleName: aws.String("admins"), Path: aws.String(policy.RolePath("dev")), AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`)}))
	}
	for _, c := range []struct {
		name    string
		run     func(context.Context, *fixture, *awsiam.IAM) error
		prepare func(*fixture)
	}{
		{"from nothing", runOnce, foreign},
		{"a destination renamed, everything drifted", runOnce, func(w *fixture) {
			foreign(w)
			w.converge("prometheus", "prometheus-old")
			w.policy.Destinations[0].Name, w.policy.Grants[0].Destinations = "renamed", []string{"renamed"}
			w.must(w.admin().DeleteOpenIDConnectProvider(w.ctx, &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(w.account.ProviderARN(issuer))}))
		}},
		{"removal", removeOnce, func(w *fixture) {
			foreign(w)
			w.converge("prometheus")
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
				w := newFixture(t, policyText)
				c.prepare(w)
				ctx, cancel := context.WithCancel(w.ctx)
				n := 0
				killed := awsiam.New(nil)
				killed.OnCall = func(string, string) {
					if n++; n == kill {
						cancel()
					}
				}
				if err := c.run(ctx, w, killed); err == nil && kill < calls {
					t.Errorf("killed at call %d of %d: no error", kill, calls)
				}
				cancel()
				w.must(nil, c.run(w.ctx, w, awsiam.New(nil)))
				if got := w.state(); got != want {
					t.Errorf("killed at call %d of %d:\n%s\nwant:\n%s", kill, calls, got, want)
				}
			}
			t.Logf("killed at each of %d calls", calls)
		})
	}
}

// runOnce applies a plan, as one process does; the first error ends it.
func runOnce(ctx context.Context, w *fixture, i *awsiam.IAM) error {
	observed := map[string]plan.Account{}
	for _, target := range plan.Targets(w.policy, w.issuer) {
		observed[target.Account] = i.Observe(ctx, target)
	}
	return applied(ctx, i, plan.Compute(plan.Input{Policy: w.policy, Issuer: w.issuer, Accounts: observed, ServiceAccounts: []plan.ServiceAccount{
		{Namespace: "monitoring", Name: "prometheus", Injection: policy.InjectionEnabled},
	}}))
}

func removeOnce(ctx context.Context, w *fixture, i *awsiam.IAM) error {
	observed := map[string]plan.Account{}
	for _, target := range plan.RemovalTargets(w.policy, w.issuer) {
		observed[target.Account] = i.References(ctx, target, i.Observe(ctx, target))
	}
	return applied(ctx, i, plan.Remove(w.policy, w.issuer, observed))
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
	w := newFixture(t, policyText)
	w.converge("prometheus")
	i := awsiam.New(nil)
	observed := map[string]plan.Account{}
	for _, target := range plan.RemovalTargets(w.policy, w.issuer) {
		observed[target.Account] = i.References(w.ctx, target, i.Observe(w.ctx, target))
	}
	p := plan.Remove(w.policy, w.issuer, observed)
	if len(p.Changes) != 3 {
		t.Fatalf("plan:\n%s", p)
	}
	stolen := []types.Tag{{Key: aws.String(plan.TagOwner), Value: aws.String("other")}}
	w.must(w.admin().TagRole(w.ctx, &iam.TagRoleInput{RoleName: aws.String(roleName), Tags: stolen}))
	w.must(w.admin().TagOpenIDConnectProvider(w.ctx, &iam.TagOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(w.account.ProviderARN(issuer)), Tags: stolen}))
	before := w.state()
	for _, c := range p.Changes {
		if err := i.Apply(w.ctx, c); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v, want a refusal", c.Title(), err)
		}
	}
	if got := w.state(); got != before {
		t.Errorf("now:\n%s\nbefore:\n%s", got, before)
	}
}

func TestCallsAreCounted(t *testing.T) {
	w := newFixture(t, policyText)
	w.cloud.Fail("iam:GetOpenIDConnectProvider", awstest.Throttle.Times(2))
	count := map[string]int{}
	i := awsiam.New(nil)
	i.OnCall = func(operation, result string) { count[operation+" "+result]++ }
	w.must(nil, runOnce(w.ctx, w, i))
	want := map[string]int{
		"GetOpenIDConnectProvider Throttling": 2, "GetOpenIDConnectProvider NoSuchEntity": 1, "GetRole NoSuchEntity": 1, "GetRole ok": 1,
		"ListRoles ok": 1, "CreateOpenIDConnectProvider ok": 1, "CreateRole ok": 1, "PutRolePolicy ok": 1,
	}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Error(diff)
	}
}
