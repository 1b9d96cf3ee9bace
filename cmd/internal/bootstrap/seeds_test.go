package bootstrap_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Each row of docs/design/seeds.md says what became of a line of the documents that ampbridge
// replaces, and names tests that exist.
func TestEveryRowOfTheSeedsHasItsTest(t *testing.T) {
	const root = "../../.."
	named := regexp.MustCompile("`([a-z0-9/]+) (Test[A-Za-z0-9]+)`")
	rows := 0
	for line := range strings.SplitSeq(testkit.ReadFile(t, filepath.Join(root, "docs", "design", "seeds.md")), "\n") {
		cells := strings.Split(strings.Trim(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || len(cells) < 4 || cells[0] == "the document" || strings.HasPrefix(cells[0], "---") {
			continue
		}
		rows++
		if !slices.Contains([]string{"itself", "diagnosed", "printed", "not needed"}, cells[1]) {
			t.Errorf("%s: %q says not what became of it", cells[0], cells[1])
		}
		tests := named.FindAllStringSubmatch(cells[3], -1)
		if len(tests) == 0 {
			t.Errorf("%s: no test", cells[0])
		}
		for _, test := range tests {
			files, err := filepath.Glob(filepath.Join(root, test[1], "*_test.go"))
			testkit.Must(t, err)
			if !slices.ContainsFunc(files, func(file string) bool {
				text, err := os.ReadFile(file)
				return err == nil && strings.Contains(string(text), "\nfunc "+test[2]+"(")
			}) {
				t.Errorf("%s: there is no %s in %s", cells[0], test[2], test[1])
			}
		}
	}
	if rows < 60 {
		t.Errorf("%d rows", rows)
	}
}
