package trust_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// drift makes manual changes to a cluster's resources: one of each kind that sync can repair.
func drift(ctx context.Context, t *testing.T, m *member, admin *iam.Client) {
	t.Helper()
	central, backup := new(m.role(0).RoleName()), new(m.role(1).RoleName())
	provider := new(m.issuer.ProviderARN("aws", m.accountID()).String())
	must := func(_ any, err error) {
		t.Helper()
		testkit.Must(t, err)
	}
	must(admin.UpdateAssumeRolePolicy(ctx, &iam.UpdateAssumeRolePolicyInput{RoleName: central,
		PolicyDocument: new(strings.ReplaceAll(adminsTrust, accountID, m.accountID()))}))
	must(admin.DeleteRolePermissionsBoundary(ctx, &iam.DeleteRolePermissionsBoundaryInput{RoleName: central}))
	must(admin.PutRolePolicy(ctx, &iam.PutRolePolicyInput{RoleName: central, PolicyName: new(plan.PolicyName),
		PolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)}))
	must(admin.UpdateRole(ctx, &iam.UpdateRoleInput{RoleName: central, MaxSessionDuration: new(int32(3600))}))
	must(
		admin.TagRole(
			ctx,
			&iam.TagRoleInput{RoleName: central, Tags: []types.Tag{{Key: new(plan.TagDestination), Value: new("x")}}},
		),
	)
	must(admin.PutRolePermissionsBoundary(ctx, &iam.PutRolePermissionsBoundaryInput{RoleName: backup,
		PermissionsBoundary: new("arn:aws:iam::" + m.accountID() + ":policy/other-boundary")}))
	must(
		admin.RemoveClientIDFromOpenIDConnectProvider(
			ctx,
			&iam.RemoveClientIDFromOpenIDConnectProviderInput{OpenIDConnectProviderArn: provider, ClientID: new(audience)},
		),
	)
	must(
		admin.UpdateOpenIDConnectProviderThumbprint(
			ctx,
			&iam.UpdateOpenIDConnectProviderThumbprintInput{
				OpenIDConnectProviderArn: provider,
				ThumbprintList:           []string{strings.Repeat("0", 40)},
			},
		),
	)
	must(admin.TagOpenIDConnectProvider(ctx, &iam.TagOpenIDConnectProviderInput{OpenIDConnectProviderArn: provider,
		Tags: []types.Tag{{Key: new(plan.TagCluster), Value: new("x")}}}))
}

// Sync works with the permissions that are listed for it, and uses each of them.
func TestSyncNeedsExactlyItsPermissions(t *testing.T) {
	namespace(t, "exactly", "prometheus")
	for name, scope := range scopes {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			account := f.account(accountID)
			m := f.join(f.vouched(scope(policyText("dev", accountID, "exactly"))), privateIssuer).confine()
			admin := account.IAM()

			m.inSync()
			if out := m.inSync(); !strings.Contains(out, "nothing to change") {
				t.Errorf("second run:\n%s", out)
			}
			want := f.state(account)
			drift(t.Context(), t, m, admin)
			if m.assume(m.role(0), "exactly", "prometheus") == nil {
				t.Error("the manual changes have no effect")
			}
			m.inSync()
			if diff := cmp.Diff(want, f.state(account)); diff != "" {
				t.Errorf("repaired (-want +got):\n%s", diff)
			}
			if err := m.assume(m.role(0), "exactly", "prometheus"); err != nil {
				t.Error(err)
			}
			if m.assume(m.role(0), "exactly", "default") == nil {
				t.Error("a service account without a grant assumed the role")
			}

			var used, listed []string
			for _, c := range f.cloud.Calls() {
				if (c.Service == "iam" || c.Service == "aps") && c.Code != "AccessDenied" && strings.Contains(c.Principal, ":user/sync-") {
					used = append(used, c.Service+":"+c.Action)
				}
			}
			for _, s := range policy.SyncPermissions(m.policy, m.issuer, accountID).Statement {
				if s.Effect == "Allow" {
					listed = append(listed, s.Action...)
				}
			}
			slices.Sort(used)
			slices.Sort(listed)
			if diff := cmp.Diff(slices.Compact(used), listed); diff != "" {
				t.Errorf("permissions (-used +listed):\n%s", diff)
			}
			m.neverDenied()
		})
	}
}

// neverDenied fails the test for each call that sync's permissions did not allow.
func (m *member) neverDenied() {
	m.Helper()
	for _, c := range m.cloud.Calls() {
		if strings.HasPrefix(c.Code, "AccessDenied") && strings.Contains(c.Principal, ":user/sync-") {
			m.Errorf("%s was denied: %s", c.Action, c.Message)
		}
	}
}

// The controller also works with the same permissions: from an empty account, after manual changes, and after
// a change of the policy.
func TestTheControllerNeedsNoMore(t *testing.T) {
	namespace(t, "controlled", "prometheus")
	testkit.Must(t, kube.Namespace(t.Context(), "ampbridge-system", nil))
	f := newFixture(t)
	account := f.account(accountID)
	text := strings.Replace(f.vouched(policyText("dev", accountID, "controlled")), "trust: {", "trust: {interval: 1s, ", 1)
	m := f.join(text, privateIssuer).confine()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	controller := m.ampbridge(ctx, "sync", "--health-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0")
	controller.Cancel = func() error { return controller.Process.Signal(os.Interrupt) }
	var log testkit.Buffer
	controller.Stdout, controller.Stderr = &log, &log
	f.must(nil, controller.Start())
	eventually := func(what string, holds func() bool) {
		t.Helper()
		testkit.EventuallyEmpty(t, func() string {
			if holds() {
				return ""
			}
			return what + "\n" + log.String()
		})
	}
	assumes := func() bool {
		return m.assume(m.role(0), "controlled", "prometheus") == nil && m.assume(m.role(1), "controlled", "prometheus") == nil
	}
	eventually("trust", assumes)
	want := f.state(account)
	drift(t.Context(), t, m, account.IAM())
	eventually("repaired", func() bool { return cmp.Equal(want, f.state(account)) })
	old, oldRole := m.file, m.role(0)
	m.follow(scopes[policy.RoleScopeServiceAccount](text))
	testkit.WriteFile(t, old, testkit.ReadFile(t, m.file))
	eventually("a role for each service account", assumes)
	eventually("the old one closed", func() bool { return m.assume(oldRole, "controlled", "prometheus") != nil })
	stop()
	if err := controller.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("the controller ended with %v\n%s", err, log.String())
	}
	m.neverDenied()
}

// If another owner's role has one of the cluster's names, the error must be helpful and not AccessDenied,
// wherever in the account the role is.
func TestForeignRolesAreSeenUnderThosePermissions(t *testing.T) {
	namespace(t, "exactly", "prometheus")
	for _, path := range []string{"/", "/admins/", "/ampbridge/dev/"} {
		f := newFixture(t)
		account := f.account(accountID)
		m := f.join(policyText("dev", accountID, "exactly"), issuerOf(1)).confine()
		admin := account.IAM()
		f.must(
			admin.CreateRole(
				t.Context(),
				&iam.CreateRoleInput{
					RoleName:                 new(m.role(0).RoleName()),
					Path:                     &path,
					AssumeRolePolicyDocument: new(adminsTrust),
				},
			),
		)
		f.must(
			admin.CreateRole(
				t.Context(),
				&iam.CreateRoleInput{
					RoleName:                 new("other"),
					Path:                     new("/ampbridge/dev/"),
					AssumeRolePolicyDocument: new(adminsTrust),
				},
			),
		)
		before := f.state(account)
		out, err := m.sync()
		if err == nil || !strings.Contains(out, "was not created by sync") || strings.Contains(out, "AccessDenied") {
			t.Errorf("%s: %v\n%s", path, err, out)
		}
		after := f.state(account)
		for arn, was := range before {
			if diff := cmp.Diff(was, after[arn]); diff != "" {
				t.Errorf("%s: %s was changed (-want +got):\n%s", path, arn, diff)
			}
		}
		if err := m.assume(m.role(1), "exactly", "prometheus"); err != nil {
			t.Errorf("%s: the other destination: %v", path, err)
		}
	}
}

// IAM's answers about a new role that it does not show yet contain no path. Sync must wait for it anyway.
func TestNewRolesAreAwaitedUnderThosePermissions(t *testing.T) {
	namespace(t, "exactly", "prometheus")
	f := newFixture(t)
	f.account(accountID)
	m := f.join(policyText("dev", accountID, "exactly"), issuerOf(1)).confine()
	f.cloud.SetReadDelay(time.Second)
	m.inSync()
	f.cloud.SetReadDelay(0)
	if out := m.inSync(); !strings.Contains(out, "nothing to change") {
		t.Errorf("second run:\n%s", out)
	}
}

// remover makes a user with the permissions of sync and those for --remove.
func (m *member) remover(account *awstest.Account, name string) awstest.Credentials {
	m.Helper()
	both := policy.SyncPermissions(m.policy, m.issuer, accountID)
	both.Statement = append(both.Statement, policy.RemovalPermissions(m.policy, m.issuer, accountID).Statement...)
	creds, err := account.PutUser(name, both.String())
	m.must(nil, err)
	return creds
}

// newShared returns an account that a cluster uses already.
func newShared(t *testing.T) (f *fixture, account *awstest.Account, other *member) {
	t.Helper()
	namespace(t, "exactly", "prometheus")
	f = newFixture(t)
	account = f.account(accountID)
	other = f.join(policyText("dev2", accountID, "exactly"), issuerOf(2)).confine()
	other.inSync()
	return f, account, other
}

// The permissions for --remove reach what is the cluster's, and that alone.
func TestRemovalReachesOnlyItsOwn(t *testing.T) {
	f, account, other := newShared(t)
	m := f.join(policyText("dev", accountID, "exactly"), issuerOf(1)).confine()
	m.inSync()
	creds := m.remover(account, "removal")
	remover := f.client(creds)
	remove := func(m *member) (errs []error) {
		name, arn := new(m.role(0).RoleName()), new(m.issuer.ProviderARN("aws", accountID).String())
		_, err := remover.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{RoleName: name, PolicyName: new(plan.PolicyName)})
		errs = append(errs, err)
		_, err = remover.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: name})
		errs = append(errs, err)
		_, err = remover.DeleteOpenIDConnectProvider(t.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: arn})
		return append(errs, err)
	}
	for _, err := range remove(other) {
		if !denied(err) {
			t.Errorf("of another cluster: %v", err)
		}
	}
	for _, err := range remove(m) {
		if err != nil {
			t.Errorf("of its own: %v", err)
		}
	}
}

// --remove does not need more than both documents.
func TestRemovalNeedsNoMore(t *testing.T) {
	f, account, _ := newShared(t)
	want := f.state(account)
	m := f.join(policyText("dev", accountID, "exactly"), issuerOf(1)).confine()
	m.inSync()
	m.follow(scopes[policy.RoleScopeServiceAccount](policyText("dev", accountID, "exactly")))
	m.inSync()
	creds := m.remover(account, "sync-removal")
	m.creds = creds
	out, err := m.ampbridge(t.Context(), "sync", "--remove", "--yes").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "sync: removed: 9 of 9 deletions made, 0 refused") {
		t.Errorf("%v\n%s", err, out)
	}
	if diff := cmp.Diff(want, f.state(account)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	m.neverDenied()
}

// TestTagOwner checks that two packages use the same tag.
func TestTagOwner(t *testing.T) {
	if policy.TagOwner != plan.TagOwner {
		t.Errorf("%s and %s", policy.TagOwner, plan.TagOwner)
	}
}
