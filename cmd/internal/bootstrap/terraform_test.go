package bootstrap_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/cmd/internal/cli/clitest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// run is any command, without a cluster and without AWS.
func run(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	return clitest.Run(t.Context(), "", args...)
}

// Create, write the ARN into the policy, generate again; then the destination goes.
func TestTerraformKeepsTheWorkspace(t *testing.T) {
	dir := t.TempDir()
	policy, file := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "bootstrap.tf")
	write := func(text string, args ...string) string {
		t.Helper()
		testkit.WriteFile(t, policy, text)
		status, stdout, stderr := run(t, append([]string{"bootstrap", "--policy", policy, "-o", "terraform"}, args...)...)
		if status != cli.OK || stderr != "" {
			t.Fatalf("status %d: %s", status, stderr)
		}
		return stdout
	}
	const resource, removed = `resource "aws_prometheus_workspace" "central" {`, "from = aws_prometheus_workspace.central"
	if out := write(policyText, "--file", file); out != "" || !strings.Contains(testkit.ReadFile(t, file), resource) {
		t.Fatalf("%s\n%s", out, testkit.ReadFile(t, file))
	}
	testkit.Must(t, os.Chmod(file, 0o640))
	made := strings.Replace(policyText, "ws-new", "ws-0001", 1)
	write(made, "--file", file)
	if text := testkit.ReadFile(t, file); !strings.Contains(text, resource) || strings.Contains(text, removed) {
		t.Errorf("with the ARN in the policy:\n%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	byHand := strings.Split(made, "trust:")[0] + "trust: {manage: none}\n"
	out := write(byHand, "--file", filepath.Join(t.TempDir(), "nothing.tf"))
	if !strings.Contains(out, "nothing.tf makes nothing, because trust.manage is none") {
		t.Errorf("nothing to make: %q", out)
	}
	// Standard output is the same, beside the file that was written before.
	other := strings.NewReplacer("central", "other", "ws-0001", "ws-0002").Replace(made)
	printed := write(other, "--earlier", file)
	write(other, "--file", file)
	if text := testkit.ReadFile(
		t,
		file,
	); text != printed || strings.Contains(text, resource) || !strings.Contains(text, removed) ||
		!strings.Contains(text, "destroy = false") {
		t.Errorf("with another destination:\n%s", text)
	}
	// A file of somebody else is not written over.
	testkit.WriteFile(t, file, "resource \"aws_s3_bucket\" \"ours\" {}\n")
	if status, _, stderr := run(
		t,
		"bootstrap",
		"--policy",
		policy,
		"-o",
		"terraform",
		"--file",
		file,
	); status != cli.Failed || !strings.Contains(stderr, "was not written by ampbridge") ||
		!strings.Contains(testkit.ReadFile(t, file), "ours") {
		t.Errorf("status %d: %s", status, stderr)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("%v, %v: want the policy and the configuration", left, err)
	}
}

// A workspace that is yet to be made means something to bootstrap alone.
func TestOtherCommandsRefuseNewWorkspaces(t *testing.T) {
	dir := t.TempDir()
	pod, prometheus := filepath.Join(dir, "pod.yaml"), filepath.Join(dir, "prometheus.yml")
	testkit.WriteFile(t, pod, "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: prom/prometheus}]}\n")
	testkit.WriteFile(t, prometheus, "global: {}\n")
	for _, id := range []string{"ws-new", "ws-new-2", "ws-NEW"} {
		policy := filepath.Join(dir, "policy.yaml")
		testkit.WriteFile(t, policy, strings.Replace(policyText, "ws-new", id, 1))
		for _, args := range [][]string{
			{"validate", policy},
			{"sync", "--once", "--policy", policy},
			{"sync", "--remove", "--dry-run", "--policy", policy},
			{"plan", "--policy", policy},
			{"plan", "--policy", policy, "-o", "terraform", "--subjects-from-grants"},
			{"inject", "--policy", policy, "-f", pod},
			{"config", "--policy", policy, "-n", "monitoring", "--service-account", "prometheus", "-f", prometheus},
			{"status", "--policy", policy},
			{"doctor", "--policy", policy},
		} {
			status, stdout, stderr := run(t, args...)
			said := stdout + stderr
			if status == cli.OK ||
				!strings.Contains(said, "line 6: destinations[0].workspace: is "+id+", a placeholder for a new workspace") ||
				!strings.Contains(said, "ampbridge bootstrap --policy") {
				t.Errorf("%s: ampbridge %s: status %d\n%s", id, strings.Join(args, " "), status, said)
			}
		}
		if status, _, stderr := run(t, "bootstrap", "--policy", policy, "-o", "aws-cli"); status != cli.OK {
			t.Errorf("bootstrap: status %d: %s", status, stderr)
		}
	}
}
