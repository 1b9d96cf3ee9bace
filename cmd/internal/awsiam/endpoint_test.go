package awsiam_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/cmd/internal/awsiam"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/policytest"
)

// inChild has the policy of the process that TestEndpointsOfTheEnvironment starts: Go reads
// the proxy from the environment once in a process.
const inChild = "AMPBRIDGE_TEST_POLICY"

// TestEndpointsOfTheEnvironment: sync assumes its role and reads IAM through each kind of
// endpoint that the SDK's environment variables choose. The double refuses a signature for
// another region than the endpoint's.
func TestEndpointsOfTheEnvironment(t *testing.T) {
	if text := os.Getenv(inChild); text != "" {
		p := policytest.Parse(t, text)
		for _, target := range plan.Targets(p, issuer) {
			if seen := awsiam.New(p.Trust.Accounts).Observe(t.Context(), target); seen.Problem != "" {
				t.Error(seen.Problem)
			}
		}
		return
	}
	const other = "444455556666"
	text := strings.Replace(strings.ReplaceAll(policyText, accountID, other), "trust: {",
		`trust: {accounts: [{id: "444455556666", syncRole: "arn:aws:iam::444455556666:role/sync"}], `, 1)
	f := newFixture(t, text)
	f.makeSyncRole()
	f.cloud.Setenv(f, f.cloud.Account(accountID).AdminCredentials())
	ca := filepath.Join(t.TempDir(), "ca.pem")
	f.must(nil, os.WriteFile(ca, f.cloud.CA, 0o600))
	for _, name := range []string{"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_IAM", "AWS_ENDPOINT_URL_STS", "NO_PROXY", "no_proxy"} {
		t.Setenv(name, "")
	}
	t.Setenv("HTTPS_PROXY", f.cloud.StartProxy(t))
	t.Setenv("AWS_CA_BUNDLE", ca)
	t.Setenv(inChild, text)
	for name, variables := range map[string][]string{
		"none":              nil,
		"another region":    {"AWS_ENDPOINT_URL_STS=https://sts.us-east-2.amazonaws.com"},
		"FIPS":              {"AWS_ENDPOINT_URL_STS=https://sts-fips.us-west-2.amazonaws.com"},
		"dual-stack":        {"AWS_ENDPOINT_URL_STS=https://sts.eu-central-1.api.aws"},
		"global":            {"AWS_ENDPOINT_URL_STS=https://sts.amazonaws.com", "AWS_ENDPOINT_URL_IAM=https://iam.amazonaws.com"},
		"the SDK's choices": {"AWS_USE_DUALSTACK_ENDPOINT=true"},
		"the SDK's FIPS":    {"AWS_USE_FIPS_ENDPOINT=true"},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(f.cloud.Calls())
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEndpointsOfTheEnvironment$")
			child.Env = append(os.Environ(), variables...)
			if out, err := child.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var actions []string
			for _, call := range f.cloud.Calls()[before:] {
				actions = append(actions, call.Service+":"+call.Action)
			}
			if all := strings.Join(actions, " "); !strings.Contains(all, "sts:AssumeRole ") || !strings.Contains(all, "iam:ListRoles") {
				t.Errorf("the double saw %s", all)
			}
		})
	}
}
