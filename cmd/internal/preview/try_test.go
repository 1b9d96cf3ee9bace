package preview_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The first command that somebody runs needs nothing, and shows everything.
func TestTry(t *testing.T) {
	t.Setenv("KUBECONFIG", "/nowhere")
	t.Setenv("HOME", t.TempDir())
	stdout, stderr, err := command(t, "", "try")
	if err != nil || stderr != "" {
		t.Fatalf("%v %q", err, stderr)
	}
	golden(t, "try.txt", stdout)
	for _, want := range []string{
		"+     name: ampbridge-config\n", "+ remote_write:", "CreateRole", "✗ trust", "the slash", "update-assume-role-policy",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q", want)
		}
	}
	// All that the pod loses is the place of one volume: the sidecar has it, under another name.
	_, changed, _ := strings.Cut(stdout, "=== 2.")
	if lost := regexp.MustCompile("(?m)^- .*\n").FindAllString(changed, -1); !slices.Equal(
		lost,
		[]string{"-   - configMap:\n", "-       name: prometheus-server\n"},
	) {
		t.Errorf("lines that are gone: %q", lost)
	}
	if _, stderr, err := command(t, "", "try", "policy.yaml"); err == nil || !err.usage() {
		t.Errorf("with an argument: %v %q", err, stderr)
	}
}
