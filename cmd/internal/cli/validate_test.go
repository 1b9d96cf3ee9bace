package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// The report for other programs has every mistake, as the text does.
func TestValidateForOtherPrograms(t *testing.T) {
	want := []validation{
		{File: "good.yaml", Valid: true, Cluster: "dev", Destinations: 1, Grants: 1, Mistakes: []mistake{}},
		{File: "bad.yaml", Mistakes: []mistake{
			{Line: 3, Field: "cluster.nam", Problem: "unknown field: did you mean name?"},
			{Line: 3, Field: "cluster.name", Problem: `"" is not a DNS label: ` +
				"write lower-case letters, digits and dashes, at most 63, such as dev-aks"},
			{Line: 7, Field: "grants[0].destinations[0]", Problem: `"centrl" is no destination of this policy: ` +
				"add it under destinations, or write one of central"},
		}},
		{File: "missing.yaml", Mistakes: []mistake{{Problem: "open missing.yaml: no such file or directory"}}},
	}
	for _, format := range []string{"json", "yaml"} {
		status, stdout, stderr := run(t, "", "validate", "-o", format, "--policy", "good.yaml", "bad.yaml", "missing.yaml")
		if status != Failed || stderr != "ampbridge: 2 of 3 policy files have mistakes\n" {
			t.Errorf("%s: status %d, %q", format, status, stderr)
		}
		var got []validation
		if err := yaml.UnmarshalStrict([]byte(stdout), &got); err != nil {
			t.Fatalf("%s: %v: %s", format, err, stdout)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
}
