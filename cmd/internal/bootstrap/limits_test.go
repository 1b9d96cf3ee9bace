package bootstrap_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// large is a policy of the longest cluster name, with a workspace for each destination.
func (f *fixture) large(destinations int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: ampbridge.io/v1alpha1\nkind: Policy\ncluster: {name: %s, issuer: %q}\ndestinations:\n",
		strings.Repeat("c", 63), issuer)
	for i := range destinations {
		region := []string{"eu-west-1", "eu-central-1", "us-east-1", "ap-southeast-2"}[i%4]
		fmt.Fprintf(&b, "- {name: destination-%d, workspace: %q}\n", i, f.account.CreateWorkspace(region, "").ARN)
	}
	b.WriteString("grants:\n- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [")
	for i := range destinations {
		fmt.Fprintf(&b, "destination-%d, ", i)
	}
	fmt.Fprintf(&b, "]}\ntrust: {permissionsBoundary: %q}\n", boundary)
	return b.String()
}

func (f *fixture) iam(c awstest.Credentials) *iam.Client {
	return iam.NewFromConfig(f.cloud.Config(c, region))
}

// sync brings the account in sync with the policy, as sync would do it with the
// credentials in the environment, and returns how many changes it made.
func (f *fixture) sync(p *policy.Policy) int {
	f.Helper()
	return f.syncSubjects(p, []policy.Subject{{Namespace: "monitoring", ServiceAccount: "prometheus"}})
}

// syncSubjects does so for the service accounts of labelled namespaces.
func (f *fixture) syncSubjects(p *policy.Policy, subjects []policy.Subject) int {
	f.Helper()
	in := plan.Input{Policy: p, Issuer: p.Cluster.Issuer, Accounts: map[string]plan.Account{}}
	for _, s := range subjects {
		in.ServiceAccounts = append(in.ServiceAccounts, plan.ServiceAccount{
			Namespace: s.Namespace, Name: s.ServiceAccount, Injection: policy.InjectionAnnotated,
		})
	}
	client := awsiam.New(p.Trust.Accounts)
	for _, target := range in.Targets() {
		in.Accounts[target.Account] = client.Observe(f.Context(), target)
	}
	desired := plan.Compute(in)
	if len(desired.Refusals) > 0 {
		f.Fatalf("refused: %v", desired.Refusals)
	}
	for _, c := range desired.Changes {
		if err := client.Apply(f.Context(), c); err != nil {
			f.Fatalf("%s: %v", c.Title(), err)
		}
	}
	return len(desired.Changes)
}

func TestHundredDestinations(t *testing.T) {
	f := newFixture(t, policyText)
	f.write(f.large(100))
	if out := f.must(); !strings.Contains(out, "0 refused") {
		t.Fatal(out)
	}
	f.must("--apply", "--yes")
	if out := f.must(); !strings.Contains(out, "plan: 0 to create, 0 to change, 0 refused") {
		t.Error(out)
	}
	for _, format := range [][]string{{"-o", "aws-cli"}, {"-o", "terraform", "--file", filepath.Join(t.TempDir(), "b.tf")}} {
		f.must(format...)
	}
	// Sync, with the permissions that bootstrap gave it and nothing else.
	p := f.policy()
	permissions := policy.SyncPermissions(p, issuer, accountID)
	keys, err := f.account.PutUser("sync", permissions.String())
	testkit.Must(t, err)
	f.credentials(keys)
	if made := f.sync(p); made != 200 {
		t.Errorf("sync made %d changes, want a role and its permissions for each of 100", made)
	}
	if again := f.sync(p); again != 0 {
		t.Errorf("sync made %d changes again", again)
	}
	// The boundary is narrow: of the account's workspaces it allows those of the policy.
	other := f.account.CreateWorkspace(region, "other").ARN
	for _, d := range append(p.Destinations, policy.Destination{Workspace: arn(t, other)}) {
		allowed := false
		for _, s := range policy.BoundaryDocument(p, accountID).Statement {
			for _, r := range s.Resource {
				allowed = allowed || policy.Glob(r).Match(d.Workspace.String())
			}
		}
		if want := d.Name != ""; allowed != want {
			t.Errorf("%s: allowed %v, want %v", d.Workspace, allowed, want)
		}
	}
}

func arn(t *testing.T, text string) (w policy.Workspace) {
	t.Helper()
	testkit.Must(t, w.UnmarshalText([]byte(text)))
	return w
}

func TestThousandDestinationsAreRefusedFirst(t *testing.T) {
	f := newFixture(t, policyText)
	text := f.large(1000)
	f.write(text)
	n := len(f.cloud.Calls())
	status, out, errs := f.run("", "--apply", "--yes")
	if status != cli.Failed || !strings.Contains(out, "the boundary names 1000 workspaces and roles") ||
		!strings.Contains(out, "create a policy of your own") || len(f.writes(n)) > 0 {
		t.Errorf("status %d, %v\n%.3000s%s", status, f.writes(n), out, errs)
	}
	for _, args := range [][]string{{"-o", "aws-cli"}, {"-o", "terraform", "--earlier", "none"}} {
		n := len(f.cloud.Calls())
		if status, out, errs := f.run("", args...); status != cli.Failed || out != "" || len(f.cloud.Calls()) > n ||
			!strings.Contains(errs, "create a policy of your own") {
			t.Errorf("%s: status %d, %d bytes: %s", args, status, len(out), errs)
		}
		out := f.must(append(args, "--existing-boundary")...)
		if strings.Contains(out, "create-policy ") || strings.Contains(out, `"aws_iam_policy"`) || !strings.Contains(out, boundary) {
			t.Errorf("%s: with a boundary that is kept elsewhere:\n%.2000s", args, out)
		}
	}
	// The way out that the refusal names.
	_, err := f.iam(f.account.AdminCredentials()).CreatePolicy(t.Context(), &iam.CreatePolicyInput{
		PolicyName: new("ampbridge-boundary"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow",` +
			`"Action":"aps:RemoteWrite","Resource":"arn:aws:aps:*:111122223333:workspace/*"}}`),
	})
	testkit.Must(t, err)
	if out := f.must("--apply", "--yes"); !strings.Contains(out, "used as it is") {
		t.Error(out)
	}
}

// A region has room for 25 workspaces: those of others count.
func TestWorkspaceQuotaIsCheckedFirst(t *testing.T) {
	text := strings.Replace(policyText, "grants:",
		"- {name: more, workspace: \"arn:aws:aps:eu-west-1:111122223333:workspace/ws-new-2\"}\ngrants:", 1)
	f := newFixture(t, text)
	for range 24 {
		f.account.CreateWorkspace(region, "theirs")
	}
	f.account.CreateWorkspace("us-east-1", "theirs")
	n := len(f.cloud.Calls())
	status, out, errs := f.run("", "--apply", "--yes")
	if status != cli.Failed || !strings.Contains(out, "has 24 workspaces in eu-west-1, 2 new ones are needed, and "+
		"its quota is 25") ||
		len(f.writes(n)) > 0 {
		t.Errorf("status %d, %v\n%s%s", status, f.writes(n), out, errs)
	}
	f.account.SetQuotas(func(q *awstest.Quotas) { q.Workspaces = 26 })
	f.must("--apply", "--yes", "--workspace-quota", "26")
	// What is there counts once.
	f.must("--apply", "--yes", "--workspace-quota", "26")
	if status, _, errs := f.run("", "--workspace-quota", "0"); status != cli.Usage || !strings.Contains(errs, "write 1 or more") {
		t.Errorf("status %d: %s", status, errs)
	}
}
