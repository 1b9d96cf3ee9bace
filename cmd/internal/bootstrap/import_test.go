package bootstrap_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tfconfig"
)

// Terraform takes over what bootstrap made: whatever the policy calls the workspace.
func TestImportsAreOfWhatBootstrapMade(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bootstrap.tf")
	f := newFixture(t, policyText)
	// Nothing is there: no block.
	f.must("-o", "terraform", "--file", file, "--import")
	if text := testkit.ReadFile(t, file); strings.Contains(text, "import {") || !strings.Contains(text, `">= 1.2"`) {
		t.Errorf("blocks for nothing:\n%s", text)
	}
	f.must("--apply", "--yes", "--alias", "central=prometheus", "--write-policy", f.file+".made")
	id := ""
	for arn := range f.workspaceTags() {
		id = arn[strings.LastIndex(arn, "/")+1:]
	}
	imports := map[string]string{
		"aws_prometheus_workspace.central":        id,
		"aws_iam_openid_connect_provider.cluster": policy.Issuer(issuer).ProviderARN("aws", accountID).String(),
		"aws_iam_policy.boundary":                 boundary,
		"aws_iam_role.sync":                       roleName,
		"aws_iam_role_policy.sync":                roleName + ":ampbridge",
	}
	for name, text := range map[string]string{"a placeholder": policyText, "the ARN": testkit.ReadFile(t, f.file+".made")} {
		f.write(text)
		other := filepath.Join(t.TempDir(), "other.tf")
		f.must("-o", "terraform", "--file", other, "--import")
		written := testkit.ReadFile(t, other)
		for address, id := range imports {
			if !strings.Contains(written, "  to = "+address+"\n  id = \""+id+"\"\n") {
				t.Errorf("%s: no import of %s as %s in\n%s", name, address, id, written)
			}
		}
		if strings.Count(written, "import {") != len(imports) || !strings.Contains(written, `">= 1.5"`) ||
			!strings.Contains(written, `alias  = "prometheus"`) {
			t.Errorf("%s:\n%s", name, written)
		}
		tfconfig.Check(t, []byte(written))
		// The next file has no import any more, and the workspace stays.
		f.must("-o", "terraform", "--file", other)
		if next := testkit.ReadFile(t, other); strings.Contains(next, "import {") ||
			!strings.Contains(next, `resource "aws_prometheus_workspace" "central"`) || !strings.Contains(next, "prevent_destroy = true") {
			t.Errorf("%s: the next file\n%s", name, next)
		}
	}
	if status, _, errs := f.run("", "--import"); status != cli.Usage ||
		!strings.Contains(errs, "--import is for -o terraform") {
		t.Errorf("status %d: %s", status, errs)
	}
}

// What others made is not imported: Terraform would change it.
func TestNothingForeignIsImported(t *testing.T) {
	f := newFixture(t, policyText)
	f.account.CreateWorkspace(region, "central")
	if _, err := f.account.PutManagedPolicy("ampbridge-boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`); err != nil {
		t.Fatal(err)
	}
	if out := f.must("-o", "terraform", "--earlier", "none", "--import"); strings.Contains(out, "import {") {
		t.Error(out)
	}
}

// The roles of sync, with the same addresses as their resources.
func TestImportsOfRoles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.yaml")
	testkit.WriteFile(t, file, strings.Replace(policyText, "ws-new", "ws-0001", 1))
	status, out, errs := run(t, "plan", "--policy", file, "-o", "terraform", "--subjects-from-grants", "--import")
	if status != cli.OK {
		t.Fatal(errs)
	}
	for address, id := range map[string]string{
		"aws_iam_openid_connect_provider.cluster": policy.Issuer(issuer).ProviderARN("aws", accountID).String(),
		"aws_iam_role.central":                    "ampbridge.dev.central",
		"aws_iam_role_policy.central":             "ampbridge.dev.central:ampbridge",
	} {
		kind, name, _ := strings.Cut(address, ".")
		if !strings.Contains(out, "  to = "+address+"\n  id = \""+id+"\"\n") ||
			!strings.Contains(out, `resource "`+kind+`" "`+name+`"`) {
			t.Errorf("%s as %s is not in\n%s", address, id, out)
		}
	}
	tfconfig.Check(t, []byte(out))
	if status, _, errs := run(t, "plan", "--policy", file, "--import"); status != cli.Usage ||
		!strings.Contains(errs, "--import is for -o terraform") {
		t.Errorf("status %d: %s", status, errs)
	}
}
