package terraform

import (
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tfconfig"
)

// desiredCentral returns the central part of an account.
func desiredCentral(t *testing.T, account string, change ...func(*bootstrap.Input)) bootstrap.Central {
	t.Helper()
	tagged := func(in *bootstrap.Input) { in.Tags = map[string]string{"team": "a b@c=d"} }
	return desiredIn(t, policytest.TwoAccounts, account, slices.Insert(change, 0, tagged)...)
}

// centralText returns the first configuration of an account.
func centralText(t *testing.T, c bootstrap.Central, existingProvider bool) []byte {
	t.Helper()
	text, err := Central(c, existingProvider, Earlier{}, nil)
	testkit.Must(t, err)
	return text
}

// The Terraform of the central part has the very documents that bootstrap applies.
func TestCentralHasTheDocumentsThatBootstrapApplies(t *testing.T) {
	for _, account := range []string{"111122223333", "444455556666"} {
		c := desiredCentral(t, account)
		testkit.Golden(t, "testdata/"+account+".tf", centralText(t, c, false))
		tfconfig.Check(t, centralText(t, c, false))
		tfconfig.Check(t, centralText(t, c, true))
		config, err := tfconfig.Parse(centralText(t, c, false), map[string]map[string]string{
			"aws_iam_openid_connect_provider.cluster": {"arn": c.Provider.String()},
			"aws_prometheus_workspace.central":        {"arn": "arn:aws:aps:eu-west-1:111122223333:workspace/ws-new"},
		})
		testkit.Must(t, err)
		for attribute, want := range map[string]policy.Document{
			"aws_iam_role.sync assume_role_policy": c.Sync.Trust, "aws_iam_role_policy.sync policy": c.Sync.Permissions,
			"aws_iam_policy.boundary policy": c.Bound,
		} {
			address, name, _ := strings.Cut(attribute, " ")
			if got, err := config.Resources[address].Document(name); err != nil || !policy.Equal(got, want) {
				t.Errorf("%s: %s: %v: %s, want %s", account, attribute, err, got, want)
			}
		}
		if tags := config.Resources["aws_iam_openid_connect_provider.cluster"].Map("tags"); tags[plan.TagManagedBy] != "ampbridge" {
			t.Errorf("the provider's tags %v are not as sync writes them", tags)
		}
	}
}

// Aliases arrive as they are, and nothing of them is an expression.
func TestAliasIsText(t *testing.T) {
	for _, alias := range []string{`"quoted"`, "${HOME}", "%{ if true }", "two\nlines", `back\slash`, "# no comment", "ünïcode"} {
		c := desiredCentral(t, "111122223333", func(in *bootstrap.Input) { in.Aliases = map[string]string{"central": alias} })
		config, err := tfconfig.Parse(centralText(t, c, false), map[string]map[string]string{
			"aws_iam_openid_connect_provider.cluster": {"arn": "p"}, "aws_prometheus_workspace.central": {"arn": "w"},
		})
		testkit.Must(t, err)
		if w := config.Resources["aws_prometheus_workspace.central"]; w.String("alias") != alias {
			t.Errorf("%q became %q", alias, w.String("alias"))
		}
	}
}
