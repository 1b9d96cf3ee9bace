package terraform

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// tofuDir is a directory in which OpenTofu applies configurations, with a state.
type tofuDir struct {
	*testing.T
	dir, program string
	// env is added to OpenTofu's environment.
	env []string
}

func newTofu(t *testing.T) *tofuDir {
	t.Helper()
	return &tofuDir{T: t, dir: t.TempDir(), program: tools.Path(t, "tofu")}
}

func (d *tofuDir) run(args ...string) (string, error) {
	d.Helper()
	cmd := exec.CommandContext(d.Context(), d.program, append(args, "-no-color")...)
	cmd.Dir = d.dir
	cmd.Env = []string{"HOME=" + d.dir, "TF_CLI_CONFIG_FILE=" + os.DevNull, "CHECKPOINT_DISABLE=1"}
	cmd.Env = append(cmd.Env, d.env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// apply applies the workspaces of a configuration, and returns what OpenTofu says. It
// has no aws provider: in the place of each workspace stands OpenTofu's own resource,
// at the same name, with the blocks about its life as they were written.
func (d *tofuDir) apply(text []byte) string {
	d.Helper()
	testkit.WriteFile(d, filepath.Join(d.dir, "main.tf"), string(lives(d.T, text)))
	if out, err := d.run("init"); err != nil {
		d.Fatalf("init: %v\n%s", err, out)
	}
	out, err := d.run("apply", "-auto-approve")
	if err != nil {
		d.Fatalf("apply: %v\n%s\n%s", err, out, lives(d.T, text))
	}
	return out
}

// state lists the addresses in the state.
func (d *tofuDir) state() string {
	d.Helper()
	out, err := d.run("state", "list")
	if err != nil && !strings.Contains(out, "No state file") {
		d.Fatalf("state: %v\n%s", err, out)
	}
	return strings.Join(strings.Fields(out), " ")
}

// lives is what a configuration says of the lives of its workspaces.
func lives(t *testing.T, text []byte) []byte {
	t.Helper()
	file, problems := hclwrite.ParseConfig(text, "main.tf", hcl.InitialPos)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	next := hclwrite.NewEmptyFile()
	for _, b := range file.Body().Blocks() {
		switch whole := string(b.BuildTokens(nil).Bytes()); {
		case b.Type() == "resource" && b.Labels()[0] == workspaceType:
			r := next.Body().AppendNewBlock("resource", []string{"terraform_data", b.Labels()[1]})
			for _, inner := range b.Body().Blocks() {
				r.Body().AppendBlock(inner)
			}
		case (b.Type() == "removed" || b.Type() == "import") && strings.Contains(whole, workspaceType+"."):
			next.Body().AppendUnstructuredTokens(hclwrite.Tokens{{Bytes: []byte(strings.ReplaceAll(whole, workspaceType, "terraform_data"))}})
		}
	}
	return next.Bytes()
}

// OpenTofu forgets a workspace that leaves the policy, and destroys none; without the
// removed block it would.
func TestTofuForgetsAndDestroysNothing(t *testing.T) {
	d := newTofu(t)
	first := generate(t, centralOf(t, fresh1), nil)
	d.apply(first)
	if got := d.state(); got != "terraform_data.central" {
		t.Fatalf("state %q", got)
	}
	second := generate(t, centralOf(t, written), first)
	if out := d.apply(second); !strings.Contains(out, "0 added, 0 changed, 0 destroyed") && !strings.Contains(out, "No changes") {
		t.Errorf("with the ARN: %s", out)
	}
	// prevent_destroy holds for as long as the block is there.
	if out, err := d.run("destroy", "-auto-approve"); err == nil || !strings.Contains(out, "prevent_destroy") {
		t.Errorf("destroy: %v\n%s", err, out)
	}
	third := generate(t, centralOf(t, renamed), second)
	bare := strings.Replace(string(third), "removed {", "unused {", 1)
	if bare == string(third) {
		t.Fatalf("no removed block in\n%s", third)
	}
	testkit.WriteFile(t, filepath.Join(d.dir, "main.tf"), string(lives(t, []byte(bare))))
	if out, err := d.run("plan"); err != nil || !strings.Contains(out, "terraform_data.central will be destroyed") {
		t.Errorf("without the block: %v\n%s", err, out)
	}
	out := d.apply(third)
	if !strings.Contains(out, "0 destroyed") || strings.Contains(d.state(), "terraform_data.central ") ||
		strings.HasSuffix(d.state(), "terraform_data.central") {
		t.Errorf("with the block: state %q\n%s", d.state(), out)
	}
	// The next file forgets it again, and that does nothing.
	out = d.apply(generate(t, centralOf(t, renamed), third))
	if !strings.Contains(out, "0 destroyed") && !strings.Contains(out, "No changes") {
		t.Error(out)
	}
}

// OpenTofu takes over a workspace by its import block, once.
func TestTofuImports(t *testing.T) {
	d := newTofu(t)
	c := centralOf(t, fresh1)
	made := c.Workspaces[0]
	existing := bootstrap.FoundWorkspace{ARN: policy.Workspace{ARN: made.ARN.ARN}, Alias: "central", Tags: map[string]string{
		plan.TagOwner: c.Owner, plan.TagDestination: made.Destination,
	}}
	existing.ARN.Resource = "workspace/ws-0123abcd"
	text, err := Central(c, false, Earlier{}, &bootstrap.Found{Workspaces: []bootstrap.FoundWorkspace{existing}})
	testkit.Must(t, err)
	if out := d.apply(text); !strings.Contains(out, "1 imported, 0 added, 0 changed, 0 destroyed") || d.state() != "terraform_data.central" {
		t.Errorf("state %q\n%s", d.state(), out)
	}
	if out, err := d.run("state", "show", "terraform_data.central"); err != nil || !strings.Contains(out, `"ws-0123abcd"`) {
		t.Errorf("%v\n%s", err, out)
	}
	if out := d.apply(text); strings.Contains(out, "1 imported") {
		t.Errorf("a second time: %s", out)
	}
	if out := d.apply(generate(t, c, text)); !strings.Contains(out, "0 destroyed") && !strings.Contains(out, "No changes") {
		t.Errorf("without the block: %s", out)
	}
}
