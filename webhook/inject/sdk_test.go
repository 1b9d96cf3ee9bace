package inject

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// AWS's own SDK accepts what mode identity gives to a container: it gets a session of the first
// role, and then of the second one, with an external ID if there is one.
func TestSDKUnderstandsTheIdentity(t *testing.T) {
	for _, row := range []struct{ name, more, want string }{
		{"role", "", ":assumed-role/writer/"},
		{"second role", "assumeRole: arn:aws:iam::444455556666:role/ampbridge/chained", ":assumed-role/chained/"},
		{"external ID", "assumeRole: arn:aws:iam::444455556666:role/ampbridge/guarded\n  externalID: dev/writer", ":assumed-role/guarded/"},
	} {
		t.Run(row.name, func(t *testing.T) {
			double := ststest.New(t)
			role := double.Role(t, "111122223333", "writer", 3600)
			double.ChainedRole(t, "444455556666", "chained", role)
			double.RoleWithExternalID(t, "444455556666", "guarded", role, "dev/writer")
			p := policytest.Parse(t, `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- name: central
  workspace: arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd
  role: `+role+"\n  "+row.more+`
grants: [{namespaces: [monitoring], serviceAccounts: [otel], destinations: [central], mode: identity}]
sts: {endpoint: "`+double.URL+`"}
trust: {manage: none}
`)
			e, _ := p.EntitledAs(policy.Subject{Namespace: "monitoring", ServiceAccount: "otel"}, policy.ModeIdentity)

			// The kubelet would do this. In the test the files have other paths.
			file := filepath.Join(t.TempDir(), "config")
			paths := strings.NewReplacer(tokenFile(p), double.Token, awsConfigFile, file)
			testkit.WriteFile(t, file, paths.Replace(awsConfig(e, p)))
			for _, name := range identityVariables {
				t.Setenv(name, "")
				testkit.Must(t, os.Unsetenv(name))
			}
			t.Setenv("HOME", t.TempDir())
			for _, v := range identityVariablesFor(e, p) {
				t.Setenv(v.Name, paths.Replace(v.Value))
			}
			c, err := config.LoadDefaultConfig(t.Context())
			testkit.Must(t, err)
			caller, err := sts.NewFromConfig(c).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			testkit.Must(t, err)
			if !strings.Contains(*caller.Arn, row.want) {
				t.Errorf("got %s, want %s", *caller.Arn, row.want)
			}
		})
	}
}
