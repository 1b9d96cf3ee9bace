package bootstrap_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Each item of docs/design/seeds.md says what became of a line of the documents that ampbridge
// replaces, and names tests that exist.
func TestEveryItemOfTheSeedsHasItsTest(t *testing.T) {
	const root = "../../.."
	named := regexp.MustCompile("`([a-z0-9/]+) (Test[A-Za-z0-9]+)`")
	page := testkit.ReadFile(t, filepath.Join(root, "docs", "design", "seeds.md"))
	items := strings.Split(page, "\n- ")[1:]
	for _, item := range items {
		about, rest, _ := strings.Cut(item, "\n  - ")
		became, _, _ := strings.Cut(rest, ":")
		if !slices.Contains([]string{"done", "diagnosed", "printed", "not needed"}, became) {
			t.Errorf("%s: %q says not what became of it", about, became)
		}
		_, names, _ := strings.Cut(rest, "\n  - tests: ")
		tests := named.FindAllStringSubmatch(names, -1)
		if len(tests) == 0 {
			t.Errorf("%s: no test", about)
		}
		for _, test := range tests {
			files, err := filepath.Glob(filepath.Join(root, test[1], "*_test.go"))
			testkit.Must(t, err)
			if !slices.ContainsFunc(files, func(file string) bool {
				return strings.Contains(testkit.ReadFile(t, file), "\nfunc "+test[2]+"(")
			}) {
				t.Errorf("%s: there is no %s in %s", about, test[2], test[1])
			}
		}
	}
	if len(items) < 60 {
		t.Errorf("%d items", len(items))
	}
}
