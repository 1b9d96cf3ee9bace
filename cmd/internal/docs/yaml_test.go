package docs

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// fields are the fields of a policy. A block of YAML that has only these is a part of one.
var fields = []string{
	"apiVersion", "kind", "cluster", "destinations", "grants", "trust", "token", "session", "sts", "sidecar", "audit",
	"paused",
}

// Every block of YAML is YAML, and what it shows of a policy is a good policy, with the
// rest out of the example. A block "yml" is another program's that looks like a policy.
func TestYAML(t *testing.T) {
	var example map[string]any
	testkit.Must(t, yaml.Unmarshal([]byte(read(t, "docs/examples/policy.yaml")), &example))
	parts := 0
	for _, page := range pages(t) {
		for _, b := range blocks(t, page) {
			if b.info != "yaml" || strings.Contains(b.text, "…") {
				continue
			}
			text := unindent(b.text)
			var value any
			if err := yaml.Unmarshal([]byte(text), &value); err != nil {
				t.Errorf("%s:%d: %v", page, b.number, err)
				continue
			}
			fragment, ok := value.(map[string]any)
			if inner, within := fragment["policy"].(map[string]any); within {
				fragment = inner // values of the chart
			}
			if !ok || len(fragment) == 0 || slices.ContainsFunc(slices.Collect(maps.Keys(fragment)), notAField) {
				continue
			}
			parts++
			whole := maps.Clone(example)
			maps.Copy(whole, fragment)
			if fragment["destinations"] != nil && fragment["grants"] == nil {
				whole["grants"] = granting(fragment["destinations"])
			}
			encoded, err := yaml.Marshal(whole)
			testkit.Must(t, err)
			if _, err := policy.Parse(bytes.ReplaceAll(encoded, []byte("ws-new"), []byte("ws-0123abcd"))); err != nil {
				t.Errorf("%s:%d: %v", page, b.number, err)
			}
		}
	}
	if parts < 8 {
		t.Errorf("only %d parts of policies", parts)
	}
}

// The README begins with the policy that the quick start shows. It is good once bootstrap has
// made the workspace.
func TestFirstPolicy(t *testing.T) {
	text := read(t, "docs/examples/first-policy.yaml")
	if !strings.Contains(read(t, "docs/start/quickstart.md"), "\n"+text+"END\n") {
		t.Error("docs/start/quickstart.md does not show docs/examples/first-policy.yaml")
	}
	if _, err := policy.Parse([]byte(strings.ReplaceAll(text, "ws-new", "ws-0123abcd"))); err != nil {
		t.Error(err)
	}
}

func notAField(name string) bool { return !slices.Contains(fields, name) }

// granting returns a grant for each of the destinations.
func granting(destinations any) any {
	var names []any
	list, _ := destinations.([]any)
	for _, d := range list {
		if fields, ok := d.(map[string]any); ok {
			names = append(names, fields["name"])
		}
	}
	return []any{map[string]any{
		"namespaces": []any{"monitoring"}, "serviceAccounts": []any{"prometheus"}, "destinations": names,
	}}
}

// unindent takes away what all lines begin with, as in a block inside a list.
func unindent(text string) string {
	indent := len(text) - len(strings.TrimLeft(text, " "))
	return strings.ReplaceAll("\n"+text, "\n"+strings.Repeat(" ", indent), "\n")
}
