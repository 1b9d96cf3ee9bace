package terraform

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// whole is a directory in which OpenTofu applies configurations as they are, with a
// provider that records its calls: test/tools/tfprovider.
type whole struct {
	*tofuDir
	calls string
}

func newWhole(t *testing.T) *whole {
	t.Helper()
	w := &whole{newTofu(t), filepath.Join(t.TempDir(), "calls")}
	mirror := filepath.Join(w.dir, "mirror")
	place := filepath.Join(mirror, "registry.opentofu.org", "hashicorp", "aws", "6.0.0", runtime.GOOS+"_"+runtime.GOARCH)
	rc := filepath.Join(w.dir, "tofurc")
	for _, err := range []error{
		os.MkdirAll(place, 0o700),
		os.Symlink(tools.Path(t, "tfprovider"), filepath.Join(place, "terraform-provider-aws_v6.0.0")),
		os.WriteFile(rc, fmt.Appendf(nil, "provider_installation {\n  filesystem_mirror {\n    path = %q\n  }\n}\n", mirror), 0o600),
	} {
		testkit.Must(t, err)
	}
	w.env = []string{"TF_CLI_CONFIG_FILE=" + rc, "AMPBRIDGE_TEST_CALLS=" + w.calls}
	return w
}

// applyAll applies the configuration as it is, and returns what was called.
func (w *whole) applyAll(text []byte) string {
	w.Helper()
	testkit.WriteFile(w, filepath.Join(w.dir, "main.tf"), string(text))
	if out, err := w.run("init"); err != nil {
		w.Fatalf("init: %v\n%s", err, out)
	}
	w.recorded()
	if out, err := w.run("apply", "-auto-approve"); err != nil {
		w.Fatalf("apply: %v\n%s", err, out)
	}
	return w.recorded()
}

// recorded returns the provider's calls since the last time.
func (w *whole) recorded() string {
	w.Helper()
	text, err := os.ReadFile(w.calls)
	if err != nil && !os.IsNotExist(err) {
		w.Fatal(err)
	}
	if err == nil {
		if err := os.Remove(w.calls); err != nil {
			w.Fatal(err)
		}
	}
	return string(text)
}

// The files as bootstrap writes them, applied one after the other: no workspace is
// destroyed, whatever leaves the policy, and a destroy of all stops at the workspace.
func TestNoWorkspaceIsEverDestroyed(t *testing.T) {
	w := newWhole(t)
	first := generate(t, centralOf(t, fresh1), nil)
	if calls := w.applyAll(first); !strings.Contains(calls, "create aws_prometheus_workspace") ||
		!strings.Contains(calls, "create aws_iam_role ") || !strings.Contains(calls, "create aws_iam_openid_connect_provider") {
		t.Fatalf("calls:\n%s", calls)
	}
	if calls := w.applyAll(first); calls != "" {
		t.Errorf("a second time:\n%s", calls)
	}
	second := generate(t, centralOf(t, written), first)
	if calls := w.applyAll(second); strings.Contains(calls, "workspace") {
		t.Errorf("with the ARN:\n%s", calls)
	}
	if out, err := w.run("destroy", "-auto-approve"); err == nil || !strings.Contains(out, "prevent_destroy") {
		t.Errorf("destroy: %v\n%s", err, out)
	}
	if calls := w.recorded(); calls != "" {
		t.Errorf("a destroy that is refused:\n%s", calls)
	}
	// The destination leaves the policy.
	third := generate(t, centralOf(t, beside), second)
	if calls := w.applyAll(third); strings.Contains(calls, "workspace") {
		t.Errorf("without the destination:\n%s", calls)
	}
	if state := w.state(); strings.Contains(state, "aws_prometheus_workspace") || !strings.Contains(state, "aws_iam_role.sync") {
		t.Errorf("state %q", state)
	}
	// All of the rest goes.
	if out, err := w.run("destroy", "-auto-approve"); err != nil {
		t.Errorf("destroy: %v\n%s", err, out)
	}
	if calls := w.recorded(); strings.Contains(calls, "workspace") || !strings.Contains(calls, "delete aws_iam_role ") {
		t.Errorf("at the end:\n%s", calls)
	}
}

// What is there is taken over by its import block: nothing of it is created or
// destroyed.
func TestImportBlocksTakeOverWhatExists(t *testing.T) {
	w := newWhole(t)
	c := centralOf(t, fresh1)
	arn := policy.Workspace{ARN: c.Workspaces[0].ARN.ARN}
	arn.Resource = "workspace/ws-0123abcd"
	text, err := Central(c, false, Earlier{}, &bootstrap.Found{
		Workspaces: []bootstrap.FoundWorkspace{{ARN: arn, Alias: "central", Tags: map[string]string{
			plan.TagOwner: c.Owner, plan.TagDestination: c.Workspaces[0].Destination,
		}}},
		Provider: &plan.Provider{Audiences: c.Audiences, Tags: map[string]string{plan.TagOwner: c.Owner}},
	})
	testkit.Must(t, err)
	calls := w.applyAll(text)
	for _, kind := range []string{"prometheus_workspace", "iam_openid_connect_provider"} {
		if !strings.Contains(calls, "import aws_"+kind) || strings.Contains(calls, "create aws_"+kind) || strings.Contains(calls, "delete") {
			t.Errorf("%s:\n%s", kind, calls)
		}
	}
	if calls := w.applyAll(text); calls != "" {
		t.Errorf("a second time:\n%s", calls)
	}
	// A workspace that was taken over is forgotten like one that was made.
	if calls := w.applyAll(generate(t, centralOf(t, beside), text)); strings.Contains(calls, "workspace") {
		t.Errorf("without the destination:\n%s", calls)
	}
}
