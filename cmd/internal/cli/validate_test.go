package cli

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
)

// The report for other programs has every mistake, as the text does.
func TestValidateForOtherPrograms(t *testing.T) {
	files := []string{"--policy", "good.yaml", "bad.yaml", "missing.yaml"}
	_, _, text := run(t, "", append([]string{"validate"}, files...)...)
	for _, format := range []string{"json", "yaml"} {
		status, stdout, stderr := run(t, "", append([]string{"validate", "-o", format}, files...)...)
		if status != Failed || stderr != "ampbridge: 2 of 3 policy files have mistakes\n" {
			t.Errorf("%s: status %d, %q", format, status, stderr)
		}
		var got []validation
		if err := yaml.UnmarshalStrict([]byte(stdout), &got); err != nil {
			t.Fatalf("%s: %v: %s", format, err, stdout)
		}
		if len(got) != 3 {
			t.Fatalf("%s: %+v", format, got)
		}
		good := validation{File: "good.yaml", Valid: true, Cluster: "dev", Destinations: 1, Grants: 1, Mistakes: policy.Errors{}}
		if diff := cmp.Diff(good, got[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
		var places []string
		for _, m := range got[1].Mistakes {
			places = append(places, fmt.Sprintf("%d %s", m.Line, m.Path))
			if line := fmt.Sprintf("ampbridge: bad.yaml: line %d: %s: %s\n", m.Line, m.Path, m.Problem); !strings.Contains(text, line) {
				t.Errorf("%s: no %q in the text:\n%s", format, line, text)
			}
		}
		if diff := cmp.Diff([]string{"3 cluster.nam", "3 cluster.name", "7 grants[0].destinations[0]"}, places); diff != "" || got[1].Valid {
			t.Errorf("%s: valid: %v (-want +got):\n%s", format, got[1].Valid, diff)
		}
		if m := got[2].Mistakes; len(m) != 1 || m[0].Line != 0 || m[0].Path != "" || !strings.Contains(text, "ampbridge: "+m[0].Problem+"\n") {
			t.Errorf("%s: %+v", format, m)
		}
	}
}
