package terraform_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/cmd/internal/cli/clitest"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tfconfig"
)

const (
	accountID = "111122223333"
	region    = "eu-west-1"

	policyText = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev, issuer: "https://oidc.eks.eu-west-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
- {name: partner, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0002",
  assumeRole: "arn:aws:iam::999988887777:role/partner-writer"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus, second, third], destinations: [central, partner], maxSubjectsPerNamespace: 2}
trust: {permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}
`
)

// run is the program, with the policy in a file.
func run(t *testing.T, text string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	file := testkit.TempFile(t, "policy.yaml", text)
	return clitest.Run(t.Context(), "", append(args, "--policy", file)...)
}

// The roles that somebody makes from the configuration are those that sync made
// of the same cluster and policy, by IAM's own answer.
func TestTerraformIsWhatSyncApplies(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	ctx := t.Context()
	testkit.Must(t, c.Namespace(ctx, "monitoring", map[string]string{"ampbridge.io/injection": "enabled"}))
	// The third is not seen, the fourth not granted.
	for _, name := range []string{"prometheus", "second", "fourth"} {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := c.Client().CoreV1().ServiceAccounts("monitoring").Create(ctx, account, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	cloud := awstest.Start(t, awstest.Options{})
	if _, err := cloud.RegisterIssuer(c.Issuer, c.OIDC(), awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	account := cloud.Account(accountID)
	if _, err := account.PutManagedPolicy(
		"boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`,
	); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"ws-0001", "ws-0002"} {
		account.AddWorkspace(region, id)
	}
	cloud.Setenv(t, account.AdminCredentials())
	if status, out, errs := run(t, policyText, "sync", "--once", "--kubeconfig", c.Kubeconfig()); status != cli.OK {
		t.Fatal(out, errs)
	}
	calls := len(cloud.Calls())
	status, text, errs := run(t, policyText, "plan", "-o", "terraform", "--kubeconfig", c.Kubeconfig())
	if status != cli.OK || errs != "" {
		t.Fatalf("status %d: %s", status, errs)
	}
	if made := cloud.Calls()[calls:]; len(made) > 0 {
		t.Errorf("it called AWS: %v", made)
	}
	tfconfig.Check(t, []byte(text))

	provider := "arn:aws:iam::" + accountID + ":oidc-provider/" + strings.TrimPrefix(c.Issuer, "https://")
	config, err := tfconfig.Parse([]byte(text), map[string]map[string]string{"aws_iam_openid_connect_provider.cluster": {"arn": provider}})
	testkit.Must(t, err)
	client := iam.NewFromConfig(cloud.Config(account.AdminCredentials(), region))
	for _, name := range []string{"central", "partner"} {
		role := config.Resources["aws_iam_role."+name]
		roleName := role.String("name")
		is, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: &roleName})
		testkit.Must(t, err)
		equal(t, name+": trust", *is.Role.AssumeRolePolicyDocument, role, "assume_role_policy")
		if *is.Role.Path != role.String("path") ||
			*is.Role.PermissionsBoundary.PermissionsBoundaryArn != role.String("permissions_boundary") {
			t.Errorf(
				"%s: sync made %s%s, bounded by %s",
				name,
				*is.Role.Path,
				*is.Role.RoleName,
				*is.Role.PermissionsBoundary.PermissionsBoundaryArn,
			)
		}
		inline := config.Resources["aws_iam_role_policy."+name]
		policyName := inline.String("name")
		permissions, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: &roleName, PolicyName: &policyName})
		testkit.Must(t, err)
		equal(t, name+": permissions", *permissions.PolicyDocument, inline, "policy")
	}
}

func equal(t *testing.T, what, observed string, r tfconfig.Resource, attribute string) {
	t.Helper()
	observed, err := url.PathUnescape(observed)
	testkit.Must(t, err)
	is, err := policy.ParseDocument(observed)
	testkit.Must(t, err)
	written, err := r.Document(attribute)
	if err != nil || !policy.Equal(is, written) {
		t.Errorf("%s: %v\nsync:      %s\nterraform: %s", what, err, is, written)
	}
}

// Without a cluster: the policy says all, or the command line.
func TestTerraformWithoutACluster(t *testing.T) {
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	head, _, _ := strings.Cut(policyText, "destinations:")
	central := `destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
`
	second := strings.Replace(policyText, "111122223333:workspace/ws-0002", "444455556666:workspace/ws-0002", 1)
	for _, c := range []struct {
		name, text, args string
		status           int
		stdout, stderr   []string
	}{
		{"named", policyText, "--subject monitoring/prometheus", cli.OK,
			[]string{`"system:serviceaccount:monitoring:prometheus",`, `url = "https://oidc.eks.`}, nil},
		{"by the grants", policyText, "--subjects-from-grants", cli.OK, []string{`"system:serviceaccount:monitoring:prometheus",`,
			`"system:serviceaccount:monitoring:second",`},
			[]string{"note: system:serviceaccount:monitoring:third: not trusted for destination central: namespace monitoring already has " +
				"as many subjects"}},
		{"managed by nobody here", strings.Replace(policyText, `{permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}`,
			"{manage: none}", 1),
			"--subjects-from-grants", cli.OK, []string{`resource "aws_iam_role" "central" {`}, []string{"note: "}},
		{"one account of two", second, "--subject monitoring/prometheus --account 444455556666", cli.OK,
			[]string{`resource "aws_iam_role" "partner" {`}, nil},
		{"two accounts", second, "--subject monitoring/prometheus", cli.Usage, nil, []string{"accounts 111122223333, 444455556666, " +
			"and a configuration is for one: name one with --account"}},
		{"another account", policyText, "--subject monitoring/prometheus --account 999999999999", cli.Usage, nil,
			[]string{"--account 999999999999: " +
				"the " +
				"policy " +
				"has " +
				"roles in 111122223333"}},
		{"no such grant", policyText, "--subject monitoring/grafana", cli.Failed, nil, []string{"--subject monitoring/grafana: no " +
			"grant of the policy covers it"}},
		{"no service account", policyText, `--subject monitoring/${x}`, cli.Usage, nil, []string{`--subject "monitoring/${x}" is not a ` +
			`service account: write NAMESPACE/NAME`}},
		{"a pattern", strings.Replace(policyText, "[prometheus,", `["prom*",`, 1), "--subjects-from-grants", cli.Failed, nil,
			[]string{"grants[0]: monitoring/prom* is a pattern for service accounts that are not known here"}},
		{"both", policyText, "--subjects-from-grants --subject a/b", cli.Usage, nil, []string{"exclude each other"}},
		{"no issuer", strings.Replace(policyText, `, issuer: "https://oidc.eks.eu-west-1.amazonaws.com/id/`+
			`0123456789ABCDEF0123456789ABCDEF"`, "", 1),
			"--subjects-from-grants", cli.Failed, nil, []string{"cluster.issuer is missing"}},
		{"no grants", head + central + "trust: {manage: none}\n", "--subjects-from-grants", cli.Failed, nil, []string{"nothing to write"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, stdout, stderr := run(t, c.text, append([]string{"plan", "-o", "terraform"}, strings.Fields(c.args)...)...)
			if status != c.status || (stderr == "") != (len(c.stderr) == 0) || (stdout == "") != (len(c.stdout) == 0) {
				t.Fatalf("status %d, want %d\n%s%s", status, c.status, stdout, stderr)
			}
			// Alignment is the formatter's.
			plain := strings.Join(strings.Fields(stdout), " ")
			for _, part := range c.stdout {
				if !strings.Contains(plain, part) {
					t.Errorf("no %s in\n%s", part, stdout)
				}
			}
			for _, part := range c.stderr {
				if !strings.Contains(stderr, part) {
					t.Errorf("no %s in\n%s", part, stderr)
				}
			}
			if stdout != "" {
				tfconfig.Check(t, []byte(stdout))
			}
		})
	}
	if status, _, stderr := run(
		t,
		policyText,
		"plan",
		"--account",
		accountID,
	); status != cli.Usage ||
		!strings.Contains(stderr, "--account is for -o terraform") {
		t.Errorf("status %d: %s", status, stderr)
	}
}
