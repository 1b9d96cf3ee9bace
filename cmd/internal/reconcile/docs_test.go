package reconcile_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The metrics that the documentation tells of, and alerts on, are those that there
// are, and none is left out.
func TestDocumentedMetrics(t *testing.T) {
	names := func(expression string, files ...string) []string {
		var list []string
		for _, file := range files {
			text := testkit.ReadFile(t, file)
			for _, found := range regexp.MustCompile(expression).FindAllStringSubmatch(text, -1) {
				list = append(list, found[1])
			}
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	const doc = "../../../docs/guides/operations.md"
	files := []string{"metrics.go", "../../../webhook/audit/metrics.go"}
	for _, dir := range []string{"sidecar", "sidecar/relay"} {
		found, err := filepath.Glob("../../../webhook/" + dir + "/*.go")
		if err != nil || len(found) == 0 {
			t.Fatal(found, err)
		}
		files = append(files, slices.DeleteFunc(found, func(file string) bool { return strings.HasSuffix(file, "_test.go") })...)
	}
	registered := names(`"(ampbridge_[a-z_]+)"`, files...)
	if told := names(`(?m)^[|-] .(ampbridge_[a-z_]+)`, doc); !slices.Equal(told, registered) {
		t.Errorf("documented:\n%s\nregistered:\n%s", strings.Join(told, "\n"), strings.Join(registered, "\n"))
	}
	for _, name := range names(`(ampbridge_[a-z_]+)`, doc) {
		if !slices.Contains(registered, name) {
			t.Errorf("there is no metric %s", name)
		}
	}
}
