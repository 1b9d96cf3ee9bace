package docs

import (
	"regexp"
	"slices"
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

// columns is the width of a page. Only what programs print or read as it is may be wider.
const columns = 120

func TestWidth(t *testing.T) {
	for _, page := range pages(t) {
		switch page {
		case "CHANGELOG.md", "docs/design/architecture.md", "docs/design/performance.md":
			continue // tables of decisions and of figures
		}
		for _, l := range lines(read(t, page)) {
			asItIs := l.code && slices.Contains([]string{"output", "text", "json"}, l.fence)
			if n := utf8.RuneCountInString(l.text); n > columns && !asItIs {
				t.Errorf("%s:%d: %d columns: write a list, or a link by its name: %s", page, l.number, n, l.text)
			}
		}
	}
}
