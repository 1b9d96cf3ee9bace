package preview_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/preview"
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
	for _, format := range []string{"json", "yaml"} {
		text, stderr, err := command(t, "", "try", "-o", format)
		var e struct {
			Pod           preview.Change[corev1.Pod] `json:"pod"`
			Configuration preview.Change[string]     `json:"configuration"`
			Plan          struct {
				Changes []struct{ Call string }
			} `json:"plan"`
			Report struct{ Failed []string } `json:"report"`
		}
		if problem := yaml.Unmarshal([]byte(text), &e); problem != nil || err != nil || stderr != "" {
			t.Fatalf("%s: %v %v %q", format, problem, err, stderr)
		}
		if len(e.Pod.Before.Spec.InitContainers) != 0 || len(e.Pod.After.Spec.InitContainers) != 1 || len(e.Plan.Changes) == 0 ||
			!strings.Contains(e.Configuration.After, "remote_write") || !slices.Equal(e.Report.Failed, []string{"trust"}) {
			t.Errorf("%s: %+v", format, e)
		}
	}
	if _, stderr, err := command(t, "", "try", "policy.yaml"); err == nil || !err.usage() {
		t.Errorf("with an argument: %v %q", err, stderr)
	}
}
