package docs

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ampbridge/ampbridge/test/words"
)

// allowed are the uses of "nobody" as the name of a user, quotes of errors, and code.
var allowed = regexp.MustCompile(`(?i)runs as nobody|user (?:id )?.?nobody|nobody listens|\x60[^\x60]*\x60`)

// The changelog keeps the words of the versions that it describes.
func TestPlainWords(t *testing.T) {
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" {
			continue
		}
		for _, l := range lines(read(t, page)) {
			if found := words.Find(allowed.ReplaceAllString(l.text, "")); len(found) > 0 {
				t.Errorf("%s:%d: %q; docs are in plain English: %s", page, l.number, found, l.text)
			}
		}
	}
}

// columns is the width of a page. Tables of short cells, JSON, output, and words that
// cannot be broken may be wider.
const columns = 120

func TestWidth(t *testing.T) {
	for _, page := range pages(t) {
		switch page {
		case "CHANGELOG.md", "docs/design/architecture.md", "docs/design/performance.md", "docs/design/seeds.md",
			"docs/reference/cli.md":
			continue // generated, or a table of names that cannot be shorter
		}
		for _, l := range lines(read(t, page)) {
			switch {
			case utf8.RuneCountInString(l.text) <= columns, strings.Contains(l.text, "://"), l.code && l.fence != "sh":
			case strings.HasPrefix(l.text, "|"):
				for cell := range strings.SplitSeq(l.text, "|") {
					if n := utf8.RuneCountInString(withoutTargets(cell)); n > 80 {
						t.Errorf("%s:%d: a cell of %d characters: write a list, or one idea per cell: %s", page, l.number, n, cell)
					}
				}
			default:
				t.Errorf("%s:%d: %d columns: %s", page, l.number, utf8.RuneCountInString(l.text), l.text)
			}
		}
	}
}

var linkTarget = regexp.MustCompile(`\]\([^)]*\)`)

func withoutTargets(cell string) string {
	return strings.TrimSpace(linkTarget.ReplaceAllString(cell, "]"))
}
