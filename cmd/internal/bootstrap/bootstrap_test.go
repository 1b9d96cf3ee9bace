package bootstrap_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/cmd/internal/cli/clitest"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	accountID = "111122223333"
	secondID  = "444455556666"
	region    = "eu-west-1"
	issuer    = "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
	roleName  = "ampbridge-sync.dev"
	boundary  = "arn:aws:iam::111122223333:policy/ampbridge-boundary"

	policyText = `# The policy of cluster dev.
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev, issuer: "` + issuer + `"}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new"} # to be made
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus], destinations: [central]}
trust: {permissionsBoundary: "` + boundary + `"}
`
)

// fixture is the double, with a policy in a file.
type fixture struct {
	*testing.T
	cloud   *awstest.Cloud
	account *awstest.Account
	file    string
	// last is the time of the last sample, in milliseconds.
	last int64
}

func newFixture(t *testing.T, text string) *fixture {
	t.Helper()
	return newFixtureOn(t, awstest.Start(t, awstest.Options{}), text)
}

func newFixtureOn(t *testing.T, cloud *awstest.Cloud, text string) *fixture {
	t.Helper()
	f := &fixture{T: t, cloud: cloud, file: filepath.Join(t.TempDir(), "policy.yaml")}
	f.account = f.cloud.Account(accountID)
	f.write(text)
	// IAM looks up the certificate of a provider that it is given no thumbprint of.
	if _, err := f.cloud.RegisterIssuer(issuer, nil, awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	f.credentials(f.account.AdminCredentials())
	return f
}

func (f *fixture) write(text string) {
	f.Helper()
	testkit.WriteFile(f, f.file, text)
}

// credentials are all that the SDK finds.
func (f *fixture) credentials(c awstest.Credentials) {
	f.Helper()
	f.cloud.Setenv(f, c)
	f.Setenv("AWS_RETRY_MODE", "standard")
	f.Setenv("AWS_MAX_ATTEMPTS", "3")
}

func (f *fixture) run(stdin string, args ...string) (status int, stdout, stderr string) {
	f.Helper()
	return f.runIn(f.Context(), stdin, args...)
}

func (f *fixture) runIn(ctx context.Context, stdin string, args ...string) (status int, stdout, stderr string) {
	f.Helper()
	return clitest.Run(ctx, stdin, append([]string{"bootstrap", "--policy", f.file}, args...)...)
}

func (f *fixture) must(args ...string) string {
	f.Helper()
	status, stdout, stderr := f.run("", args...)
	if status != cli.OK {
		f.Fatalf("bootstrap %s: status %d\n%s%s", args, status, stdout, stderr)
	}
	return stdout
}

// writes are the calls that change something, from the n-th call on.
func (f *fixture) writes(n int) []string {
	var list []string
	for _, c := range f.cloud.Calls()[n:] {
		if c.Status < 300 && !strings.HasPrefix(c.Action, "Get") && !strings.HasPrefix(c.Action, "List") &&
			!strings.HasPrefix(c.Action, "Describe") &&
			!strings.HasPrefix(c.Action, "AssumeRole") {
			list = append(list, c.Action)
		}
	}
	return list
}

var everything = []string{"CreateWorkspace", "CreateOpenIDConnectProvider", "CreatePolicy", "CreateRole", "PutRolePolicy"}

func TestApplyMakesWhatThePlanShows(t *testing.T) {
	f := newFixture(t, policyText)
	// Looking changes nothing.
	out := f.must()
	if !strings.Contains(out, "plan: 4 to create, 1 to change, 0 refused") || len(f.writes(0)) > 0 {
		t.Fatalf("%s\n%v", out, f.writes(0))
	}
	// Nobody said yes.
	for _, answer := range []string{"", "no\n", "y\n", "yes please\n"} {
		status, out, errs := f.run(answer, "--apply")
		if status != cli.Usage || len(f.writes(0)) > 0 || !strings.Contains(out, "Make these 5 changes in account "+
			"111122223333?") ||
			!strings.Contains(errs, "nothing was changed") {
			t.Fatalf("%q: status %d, %s%s", answer, status, out, errs)
		}
	}
	status, out, errs := f.run("yes\n", "--apply", "--write-policy", f.file, "--alias", "central=prometheus", "--tag", "team=o brien")
	if status != cli.OK || !slices.Equal(f.writes(0), everything) {
		t.Fatalf("status %d: %v\n%s%s", status, f.writes(0), out, errs)
	}
	p := f.policy()
	workspace := p.Destinations[0].Workspace
	for _, part := range []string{
		"bootstrap: in sync: 5 of 5 changes made",
		"workspace of destination central: arn " + workspace.String() + ", id " + workspace.ID() + ", endpoint " + f.cloud.URL +
			"/workspaces/" + workspace.ID() + "/",
		"sync's role in account 111122223333: arn:aws:iam::111122223333:role/ampbridge-sync.dev",
	} {
		if !strings.Contains(out, part) {
			t.Errorf("no %q in\n%s", part, out)
		}
	}
	text := testkit.ReadFile(f, f.file)
	if !strings.Contains(text, "# The policy of cluster dev.\n") || !strings.Contains(text, "# to be made\n") ||
		strings.Contains(text, "ws-new") {
		t.Errorf("the policy became %s", text)
	}
	found, err := amp.NewFromConfig(
		f.cloud.Config(f.account.AdminCredentials(), region),
	).DescribeWorkspace(
		f.Context(),
		&amp.DescribeWorkspaceInput{WorkspaceId: new(workspace.ID())},
	)
	if err != nil || aws.ToString(found.Workspace.Alias) != "prometheus" || found.Workspace.Tags["team"] != "o brien" {
		t.Errorf("workspace %+v, %v", found, err)
	}
	f.holds(p)
	// Again: with the old policy, and with the new one.
	n := len(f.cloud.Calls())
	if out := f.must("--apply", "--yes"); !strings.Contains(out, "in sync: nothing to change") {
		t.Error(out)
	}
	f.write(policyText)
	if out := f.must(
		"--apply",
		"--yes",
		"--alias",
		"central=prometheus",
		"--write-policy",
		f.file,
	); !strings.Contains(out, "in sync: nothing to change") ||
		!strings.Contains(out, "was created before") {
		t.Error(out)
	}
	if f.policy().Destinations[0].Workspace != workspace || len(f.writes(n)) > 0 {
		t.Errorf("the second run made %v", f.writes(n))
	}
}

func (f *fixture) policy() *policy.Policy {
	f.Helper()
	p := policytest.Parse(f, testkit.ReadFile(f, f.file))
	return p
}

// holds compares what IAM has with what package policy says.
func (f *fixture) holds(p *policy.Policy) {
	f.Helper()
	client := iam.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
	role, err := client.GetRole(f.Context(), &iam.GetRoleInput{RoleName: new(roleName)})
	testkit.Must(f, err)
	permissions, err := client.GetRolePolicy(
		f.Context(),
		&iam.GetRolePolicyInput{RoleName: new(roleName), PolicyName: new("ampbridge")},
	)
	testkit.Must(f, err)
	inline, err := client.ListRolePolicies(f.Context(), &iam.ListRolePoliciesInput{RoleName: new(roleName)})
	if err != nil || len(inline.PolicyNames) != 1 {
		f.Errorf("policies %v, %v: want one", inline, err)
	}
	attached, err := client.ListAttachedRolePolicies(f.Context(), &iam.ListAttachedRolePoliciesInput{RoleName: new(roleName)})
	if err != nil || len(attached.AttachedPolicies) > 0 {
		f.Errorf("attached %v, %v: want none", attached, err)
	}
	bound, err := client.GetPolicy(f.Context(), &iam.GetPolicyInput{PolicyArn: new(boundary)})
	testkit.Must(f, err)
	version, err := client.GetPolicyVersion(
		f.Context(),
		&iam.GetPolicyVersionInput{PolicyArn: new(boundary), VersionId: bound.Policy.DefaultVersionId},
	)
	testkit.Must(f, err)
	provider := policy.Issuer(issuer).ProviderARN("aws", accountID)
	self := policy.Subject{Namespace: "ampbridge-system", ServiceAccount: "ampbridge-sync"}
	trust := policy.TrustDocument(provider, issuer, "sts.amazonaws.com", []policy.Subject{self})
	trust.Statement[0].Sid = "Token"
	for _, c := range []struct {
		what string
		got  *string
		want policy.Document
	}{
		{"trust", role.Role.AssumeRolePolicyDocument, trust},
		{"permissions", permissions.PolicyDocument, policy.SyncPermissions(p, issuer, accountID)},
		{"boundary", version.PolicyVersion.Document, policy.BoundaryDocument(p, accountID)},
	} {
		got, err := policy.ParseDocument(*c.got)
		if err != nil || !policy.Equal(got, c.want) {
			f.Errorf("%s: %v\ngot  %s\nwant %s", c.what, err, got, c.want)
		}
	}
}

// However a run ends, the next one completes it, and makes nothing twice. A run
// that is killed does not learn what became of its last call.
func TestInterruptedRunIsCompletedByTheNext(t *testing.T) {
	for _, action := range []string{"aps:CreateWorkspace", "aps:DescribeWorkspace", "iam:CreateOpenIDConnectProvider", "iam:CreatePolicy",
		"iam:CreateRole", "iam:PutRolePolicy"} {
		for name, fault := range map[string]awstest.Fault{"denied": awstest.Deny, "killed": awstest.Lose} {
			t.Run(action+" "+name, func(t *testing.T) {
				f := newFixture(t, policyText)
				injection := f.cloud.Fail(action, fault)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if name == "killed" {
					go func() {
						for injection.Hits() == 0 && ctx.Err() == nil {
							time.Sleep(time.Millisecond)
						}
						cancel()
					}()
				}
				status, out, errs := f.runIn(ctx, "", "--apply", "--yes")
				if status != cli.Failed || injection.Hits() == 0 {
					t.Fatalf("status %d after %d faults: %s%s", status, injection.Hits(), out, errs)
				}
				if _, call, _ := strings.Cut(action, ":"); name == "denied" && !strings.Contains(errs, call) {
					t.Errorf("the error does not name %s: %s", call, errs)
				}
				injection.Stop()
				f.must("--apply", "--yes", "--write-policy", f.file)
				f.holds(f.policy())
				if out := f.must(); !strings.Contains(out, "plan: 0 to create, 0 to change, 0 refused") {
					t.Error(out)
				}
				f.hasOneWorkspace(t)
			})
		}
	}
	// An answer that is lost on the way is asked for again, in the same run.
	f := newFixture(t, policyText)
	for _, action := range []string{"aps:CreateWorkspace", "iam:CreateOpenIDConnectProvider", "iam:CreatePolicy", "iam:CreateRole",
		"iam:PutRolePolicy"} {
		f.cloud.Fail(action, awstest.Lose.Times(1))
	}
	f.must("--apply", "--yes", "--write-policy", f.file)
	f.holds(f.policy())
	f.hasOneWorkspace(t)
}

// hasOneWorkspace checks that no workspace was made twice.
func (f *fixture) hasOneWorkspace(t *testing.T) {
	t.Helper()
	client := amp.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
	list, err := client.ListWorkspaces(t.Context(), &amp.ListWorkspacesInput{})
	if err != nil || len(list.Workspaces) != 1 {
		t.Errorf("%d workspaces, %v: want one", len(list.Workspaces), err)
	}
}

// What others made stays as it is, and then nothing at all is made.
func TestForeignObjectsStayAsTheyAre(t *testing.T) {
	for name, c := range map[string]struct {
		make    func(*fixture, *iam.Client) error
		problem string
	}{
		"a role of that name": {func(f *fixture, c *iam.Client) error {
			_, err := c.CreateRole(f.Context(), &iam.CreateRoleInput{RoleName: new(strings.ToUpper(roleName)), Path: new("/theirs/"),
				AssumeRolePolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow",` +
					`"Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}}`),
			})
			return err
		}, "the name is taken by arn:aws:iam::111122223333:role/theirs/"},
		"a provider without the audience": {func(f *fixture, c *iam.Client) error {
			_, err := c.CreateOpenIDConnectProvider(f.Context(),
				&iam.CreateOpenIDConnectProviderInput{Url: new(issuer), ClientIDList: []string{"theirs"}})
			return err
		}, "does not accept the audience"},
		"a boundary for something else": {func(f *fixture, c *iam.Client) error {
			_, err := c.CreatePolicy(f.Context(), &iam.CreatePolicyInput{PolicyName: new("ampbridge-boundary"),
				PolicyDocument: new(`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)})
			return err
		}, "was not created for this cluster"},
		"a workspace of that alias": {func(f *fixture, _ *iam.Client) error {
			f.account.CreateWorkspace(region, "central")
			return nil
		}, `there is already a workspace with the alias "central"`},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, policyText)
			testkit.Must(t, c.make(f, iam.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))))
			n := len(f.cloud.Calls())
			status, out, errs := f.run("yes\n", "--apply")
			if status != cli.Failed || !strings.Contains(out, c.problem) || !strings.Contains(errs, "1 refused: nothing was changed") ||
				len(f.writes(n)) > 0 {
				t.Errorf("status %d, %v\n%s%s", status, f.writes(n), out, errs)
			}
		})
	}
	// One that lies ready is used.
	f := newFixture(t, policyText)
	client := iam.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region))
	if _, err := client.CreateOpenIDConnectProvider(
		f.Context(),
		&iam.CreateOpenIDConnectProviderInput{Url: new(issuer), ClientIDList: []string{"sts.amazonaws.com"}},
	); err != nil {
		t.Fatal(err)
	}
	n := len(f.cloud.Calls())
	f.must("--apply", "--yes")
	if got := f.writes(
		n,
	); !slices.Equal(
		got,
		slices.DeleteFunc(slices.Clone(everything), func(s string) bool { return s == "CreateOpenIDConnectProvider" }),
	) {
		t.Errorf("made %v", got)
	}
}

// The boundary follows the policy, however often it changes: IAM keeps five
// versions, and refuses a sixth.
func TestBoundaryFollowsThePolicy(t *testing.T) {
	f := newFixture(t, policyText)
	f.must("--apply", "--yes", "--write-policy", f.file)
	for i := range 7 {
		text := testkit.ReadFile(t, f.file)
		added := f.account.CreateWorkspace(region, fmt.Sprint("more-", i))
		f.write(strings.Replace(text, "grants:\n", fmt.Sprintf("- {name: more-%d, workspace: %q}\ngrants:\n", i, added.ARN), 1))
		if out := f.must(
			"--apply",
			"--yes",
		); !strings.Contains(out, "~ CreatePolicyVersion policy/ampbridge-boundary") ||
			!strings.Contains(out, "1 of 1 changes made") {
			t.Fatalf("destination %d: %s", i, out)
		}
		f.holds(f.policy())
	}
}

func TestWrongArgumentsAreNamed(t *testing.T) {
	two := strings.Replace(
		policyText,
		"destinations:\n",
		"destinations:\n- {name: other, workspace: \"arn:aws:aps:eu-west-1:444455556666:workspace/ws-0003\"}\n",
		1,
	)
	for _, c := range []struct {
		name, text, args string
		status           int
		want             string
	}{
		{"two accounts", two, "-o terraform --earlier none", cli.Usage, "the policy has the accounts 444455556666, 111122223333, and " +
			"bootstrap prepares one at a time: name it with --account"},
		{"sync reaches one of two", two, "-o terraform --earlier none --account 111122223333", cli.Failed, "add all but one of them " +
			"to trust.accounts"},
		{"another account", policyText, "--account 999999999999", cli.Usage, "--account 999999999999: the policy has 111122223333"},
		{"applied and printed", policyText, "--apply -o aws-cli", cli.Usage, "--apply and -o aws-cli exclude each other"},
		{"yes to nothing", policyText, "--yes", cli.Usage, "--yes is for --apply"},
		{"ARNs of nothing", policyText, "--write-policy x", cli.Usage, "--write-policy is for --apply"},
		{"Terraform without its past", policyText, "-o terraform", cli.Usage, "write with --file bootstrap.tf"},
		{"Terraform with two pasts", policyText, "-o terraform --file a.tf --earlier none", cli.Usage, "exclude each other"},
		{"a past that is not there", policyText, "-o terraform --earlier no-such.tf", cli.Failed, "cannot read the earlier " +
			"configuration: open no-such.tf"},
		{"a file without Terraform", policyText, "--file a.tf", cli.Usage, "--file and --earlier are for -o terraform"},
		{"format", policyText, "-o html", cli.Usage,
			`--output "html" is unknown: write text, json, yaml, terraform or aws-cli`},
		{"applied and printed for programs", policyText, "--apply -o json", cli.Usage,
			"--apply and -o json exclude each other"},
		{"a tag without a value", policyText, "--tag team", cli.Usage, `--tag "team": write NAME=VALUE`},
		{"an alias twice", policyText, "--alias central=a --alias central=b", cli.Usage, `each name once`},
		{"no namespace", policyText, "--system-namespace=", cli.Usage, "are not a valid service account"},
		{"everybody as sync", policyText, "--sync-service-account=*", cli.Usage, "are not a valid service account"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t, c.text)
			if status, out, errs := f.run("", strings.Fields(c.args)...); status != c.status || !strings.Contains(errs, c.want) {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
		})
	}
	f := newFixture(t, policyText)
	f.credentials(f.cloud.Account(secondID).AdminCredentials())
	if status, _, errs := f.run(
		"",
		"--apply",
		"--yes",
	); status != cli.Failed || !strings.Contains(errs, "the credentials are of account 444455556666, not of "+
		"111122223333") ||
		len(f.writes(0)) > 0 {
		t.Errorf("status %d: %s%v", status, errs, f.writes(0))
	}
}

// What --apply would do has the same changes as text, JSON and YAML.
func TestPlanForOtherPrograms(t *testing.T) {
	f := newFixture(t, policyText)
	_, text, _ := f.run("")
	for _, format := range []string{"json", "yaml"} {
		status, out, errs := f.run("", "-o", format)
		var p struct {
			Changes []struct {
				Call   string `json:"call"`
				Reason string `json:"reason"`
			} `json:"changes"`
		}
		if err := yaml.Unmarshal([]byte(out), &p); err != nil || status != cli.OK || errs != "" {
			t.Fatalf("%s: status %d, %v, %s\n%s", format, status, err, errs, out)
		}
		if len(p.Changes) == 0 || len(f.writes(0)) > 0 {
			t.Errorf("%s: %d changes, %v", format, len(p.Changes), f.writes(0))
		}
		for _, c := range p.Changes {
			if c.Call == "" || !strings.Contains(text, c.Reason) {
				t.Errorf("%s: %+v is not in the text:\n%s", format, c, text)
			}
		}
	}
}

func TestPolicyFromAGrantList(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "terraform.tfvars")
	text := `iam_access_grant_list = [
  { environment_name = "dev", kube_service_account_name = "prometheus", namespace = "monitoring", oidc_provider_url = "` + issuer + `" },
  { environment_name = "qa", kube_service_account_name = "prometheus", namespace = "monitoring", oidc_provider_url = "` + issuer + `1" },
]`
	testkit.WriteFile(t, list, text)
	run := func(args ...string) (int, string, string) {
		return clitest.Run(t.Context(), "", append([]string{"bootstrap", "policy", "--from", list}, args...)...)
	}
	const workspace = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new"
	if status, _, errs := run(); status != cli.Usage || !strings.Contains(errs, "no workspace") {
		t.Errorf("status %d: %s", status, errs)
	}
	if status, _, errs := run(
		"--workspace",
		workspace,
	); status != cli.Usage ||
		!strings.Contains(errs, "the list has the clusters dev, qa") {
		t.Errorf("status %d: %s", status, errs)
	}
	status, out, errs := run("--workspace", workspace, "--cluster-name", "qa")
	if p, err := policy.ParseDraft([]byte(out)); status != cli.OK || err != nil || string(p.Cluster.Issuer) != issuer+"1" {
		t.Errorf("status %d: %v\n%s%s", status, err, out, errs)
	}
	if status, out, errs := run(
		"--workspace",
		workspace,
		"--dir",
		dir,
	); status != cli.OK ||
		!strings.Contains(out, filepath.Join(dir, "dev.yaml")) {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	if status, _, errs := run("--workspace", workspace, "--dir", dir); status != cli.Failed || !strings.Contains(errs, "exists") {
		t.Errorf("written over: status %d: %s", status, errs)
	}
	testkit.WriteFile(t, list, strings.Replace(text, `"monitoring"`, `"*"`, 1))
	if status, out, errs := run("--workspace", workspace); status != cli.Failed || !strings.Contains(out, "name: qa") ||
		!strings.Contains(
			errs,
			`iam_access_grant_list[0] ("*/prometheus"): not converted`,
		) || !strings.Contains(errs, "1 of 2 entries were not converted") {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
}
