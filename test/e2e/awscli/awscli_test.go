//go:build e2e

package awscli

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// programs returns the AWS CLIs of the machine: the one in PATH, and Debian's if it is another one.
func programs(t *testing.T) (found []string) {
	t.Helper()
	for _, name := range []string{"aws", "/usr/bin/aws"} {
		if path, err := exec.LookPath(name); err == nil && !slices.Contains(found, path) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		t.Fatal("there is no AWS CLI: apt-get install -y awscli")
	}
	return found
}

// shell runs bash with a function `aws` that calls one CLI with the double's address, because older CLIs do
// not support AWS_ENDPOINT_URL.
type shell struct {
	dir, function string
	env           []string
}

func newShell(t *testing.T, e *env.Env, program string, more ...string) *shell {
	t.Helper()
	sh := &shell{
		dir:      t.TempDir(),
		function: fmt.Sprintf("aws() { '%s' --endpoint-url '%s' \"$@\"; }\n", program, e.Cloud.URL),
	}
	sh.env = append(
		[]string{
			"PATH=" + os.Getenv("PATH"),
			"HOME=" + sh.dir,
			"AWS_DEFAULT_REGION=" + env.Region,
			"AWS_PAGER=",
			"AWS_EC2_METADATA_DISABLED=true",
		},
		more...)
	return sh
}

func (sh *shell) run(t *testing.T, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", sh.function+script)
	cmd.Env, cmd.Dir = sh.env, sh.dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// This command is exactly the one in the troubleshooting of the Terraform module.
const (
	moduleCommand = `aws sts assume-role-with-web-identity --role-arn $AWS_ROLE_ARN --role-session-name x-account ` +
		`--web-identity-token file://$AWS_WEB_IDENTITY_TOKEN_FILE --duration 1500`
	// These commands are from the guide for AKS: assume the role, then use the credentials.
	guideCommand = `TEMP_CREDS=$(aws sts assume-role-with-web-identity \
  --role-arn "$AWS_ROLE_ARN" \
  --role-session-name "aks-to-amp-test" \
  --web-identity-token "file://$AWS_WEB_IDENTITY_TOKEN_FILE" \
  --duration-seconds 3600 \
  --output json)
`
)

// assumed is the answer of sts assume-role-with-web-identity.
type assumed struct {
	Credentials struct {
		AccessKeyID                               string `json:"AccessKeyId"`
		SecretAccessKey, SessionToken, Expiration string
	}
	SubjectFromWebIdentityToken string
	AssumedRoleUser             struct {
		AssumedRoleID string `json:"AssumedRoleId"`
		Arn           string
	}
	Provider, Audience string
}

func TestAssumeRoleWithWebIdentity(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	ctx := t.Context()
	testkit.Must(t, e.CreateServiceAccount(ctx, env.Namespace, "grafana"))
	token := func(account, audience string) string {
		t.Helper()
		text, err := e.Cluster.Token(ctx, env.Namespace, account, audience, 3600)
		testkit.Must(t, err)
		return testkit.TempFile(t, "token", text)
	}
	for _, program := range programs(t) {
		t.Run(strings.ReplaceAll(program, "/", "_"), func(t *testing.T) {
			environment := func(token string) []string {
				return []string{"AWS_ROLE_ARN=" + env.RoleARN, "AWS_WEB_IDENTITY_TOKEN_FILE=" + token}
			}
			sh := newShell(t, e, program, environment(token(env.ServiceAccount, env.Audience))...)
			version, err := sh.run(t, "aws --version")
			if err != nil {
				t.Fatal(version, err)
			}
			t.Log(strings.TrimSpace(version))
			out, err := sh.run(t, moduleCommand)
			if err != nil {
				t.Fatal(out, err)
			}
			var answer assumed
			testkit.DecodeJSON(t, out, &answer)
			for _, c := range []struct{ what, got, want string }{
				{"subject", answer.SubjectFromWebIdentityToken, "system:serviceaccount:" + env.Namespace + ":" + env.ServiceAccount},
				{"role", answer.AssumedRoleUser.Arn, "arn:aws:sts::" + env.AccountID + ":assumed-role/ampbridge." + env.ClusterName +
					".central/x-account"},
				{"provider", answer.Provider, "arn:aws:iam::" + env.AccountID + ":oidc-provider/" + strings.TrimPrefix(e.Cluster.Issuer, "https://")},
				{"audience", answer.Audience, env.Audience},
			} {
				if c.got != c.want {
					t.Errorf("%s %q, want %q", c.what, c.got, c.want)
				}
			}
			if !strings.HasPrefix(answer.Credentials.AccessKeyID, "ASIA") ||
				!strings.HasSuffix(answer.AssumedRoleUser.AssumedRoleID, ":x-account") {
				t.Errorf("%s, %s", answer.Credentials.AccessKeyID, answer.AssumedRoleUser.AssumedRoleID)
			}
			// The guide's next step, without jq: the credentials belong to the assumed role.
			out, err = sh.run(
				t,
				guideCommand+`export AWS_ACCESS_KEY_ID=$(printf %s "$TEMP_CREDS" | sed -n 's/.*"AccessKeyId": "\([^"]*\)".*/\1/p')
export AWS_SECRET_ACCESS_KEY=$(printf %s "$TEMP_CREDS" | sed -n 's/.*"SecretAccessKey": "\([^"]*\)".*/\1/p')
export AWS_SESSION_TOKEN=$(printf %s "$TEMP_CREDS" | sed -n 's/.*"SessionToken": "\([^"]*\)".*/\1/p')
aws sts get-caller-identity --query Arn --output text`,
			)
			if err != nil ||
				strings.TrimSpace(
					out,
				) != "arn:aws:sts::"+env.AccountID+":assumed-role/ampbridge."+env.ClusterName+".central/aks-to-amp-test" {
				t.Errorf("%s, %v", out, err)
			}
			for name, c := range map[string]struct{ token, want string }{
				"another audience": {token(env.ServiceAccount, "api://AzureADTokenExchange"), "(InvalidIdentityToken) when calling " +
					"the AssumeRoleWithWebIdentity operation"},
				"another service account": {token("grafana", env.Audience), "(AccessDenied) when calling the AssumeRoleWithWebIdentity " +
					"operation: Not authorized to perform sts:AssumeRoleWithWebIdentity"},
			} {
				out, err := newShell(t, e, program, environment(c.token)...).run(t, moduleCommand)
				if err == nil || !strings.Contains(out, c.want) {
					t.Errorf("%s: %v, want %q\n%s", name, err, c.want, out)
				}
			}
		})
	}
}

// The test runs the commands that bootstrap prints, unchanged, in an empty account. Afterwards bootstrap
// finds nothing to do.
func TestBootstrapScript(t *testing.T) {
	e := env.Start(t, env.Options{})
	ctx := t.Context()
	const alias = `it's "new"; $(exit 1) & file:///etc/passwd`
	for i, program := range programs(t) {
		t.Run(strings.ReplaceAll(program, "/", "_"), func(t *testing.T) {
			account := e.Cloud.Account(fmt.Sprintf("44445555666%d", i))
			text := fmt.Sprintf(`apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev, issuer: %q}
destinations:
- {name: central, workspace: "arn:aws:aps:%s:%s:workspace/ws-new"}
trust: {permissionsBoundary: "arn:aws:iam::%s:policy/team/ampbridge-boundary"}
`, e.Cluster.Issuer, env.Region, account.ID, account.ID)
			file := testkit.TempFile(t, "policy.yaml", text)
			script, err := e.Ampbridge(
				ctx,
				"bootstrap",
				"--policy",
				file,
				"-o",
				"aws-cli",
				"--alias",
				"central="+alias,
				"--tag",
				"team=metrics @ home",
			)
			testkit.Must(t, err)
			out, err := newShell(t, e, program, e.Account.AdminCredentials().Environ()...).run(t, script)
			if err == nil || !strings.Contains(out, "these commands are for account "+account.ID) {
				t.Errorf("in another account: %v\n%s", err, out)
			}
			sh := newShell(t, e, program, account.AdminCredentials().Environ()...)
			if out, err = sh.run(t, script); err != nil {
				t.Fatalf("%v\n%s\n%s", err, out, script)
			}
			for _, part := range []string{"arn:aws:aps:" + env.Region + ":" + account.ID + ":workspace/ws-",
				"sync's role: arn:aws:iam::" + account.ID + ":role/ampbridge-sync.dev"} {
				if !strings.Contains(out, part) {
					t.Errorf("no %q in\n%s", part, out)
				}
			}
			found, err := ampbridge(
				t,
				e,
				account,
				"bootstrap",
				"--policy",
				file,
				"--alias",
				"central="+alias,
				"--tag",
				"team=metrics @ home",
			)
			if err != nil || !strings.Contains(found, "plan: 0 to create, 0 to change, 0 refused") ||
				!strings.Contains(found, "was created before") {
				t.Errorf("%v\n%s", err, found)
			}
			// A second run creates nothing.
			before := len(e.Cloud.Calls())
			if out, err = sh.run(t, script); err != nil {
				t.Errorf("the second time: %v\n%s", err, out)
			}
			for _, c := range e.Cloud.Calls()[before:] {
				if strings.HasPrefix(c.Action, "Create") {
					t.Errorf("the second time it called %s", c.Action)
				}
			}
			// With another destination and another tag the boundary is updated, more often than IAM keeps
			// versions.
			for n := range 6 {
				added := account.CreateWorkspace(env.Region, "added")
				text := strings.Replace(text, "trust:", fmt.Sprintf("- {name: added, workspace: %q}\ntrust:", added.ARN), 1)
				testkit.WriteFile(t, file, text)
				tag := fmt.Sprintf("team=%d", n)
				if script, err = e.Ampbridge(ctx, "bootstrap", "--policy", file, "-o", "aws-cli", "--tag", tag); err != nil {
					t.Fatal(err)
				}
				if out, err = sh.run(t, script); err != nil {
					t.Fatalf("change %d: %v\n%s", n, err, out)
				}
				found, err := ampbridge(t, e, account, "bootstrap", "--policy", file, "--tag", tag)
				if err != nil || !strings.Contains(found, "plan: 0 to create, 0 to change, 0 refused") {
					t.Errorf("change %d: %v\n%s", n, err, found)
				}
			}
			// If something belongs to another cluster, the script stops before it creates anything.
			_, err = account.IAM().UntagRole(ctx, &iam.UntagRoleInput{
				RoleName: new("ampbridge-sync.dev"), TagKeys: []string{"ampbridge.io/owner"},
			})
			testkit.Must(t, err)
			before = len(e.Cloud.Calls())
			if out, err := sh.run(t, script); err == nil || !strings.Contains(out, "exists and was not created for this "+
				"cluster") {
				t.Errorf("with another's role: %v\n%s", err, out)
			}
			for _, c := range e.Cloud.Calls()[before:] {
				if !strings.HasPrefix(c.Action, "Get") && !strings.HasPrefix(c.Action, "List") {
					t.Errorf("with another's role it called %s", c.Action)
				}
			}
		})
	}
}

// ampbridge runs the product with an account's administrator keys.
func ampbridge(t *testing.T, e *env.Env, account *awstest.Account, args ...string) (string, error) {
	t.Helper()
	home := e.Account
	e.Account = account
	defer func() { e.Account = home }()
	return e.Ampbridge(t.Context(), args...)
}
