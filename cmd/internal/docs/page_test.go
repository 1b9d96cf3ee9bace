package docs

import (
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/ampbridge/ampbridge/test/testkit"
)

const root = "../../.."

// pages returns the path of each Markdown page that people read, relative to the root.
func pages(t *testing.T) []string {
	t.Helper()
	all := sources(t, ".md")
	kept := all[:0]
	for _, p := range all {
		if strings.HasPrefix(p, "docs/") || !strings.Contains(p, "/") || strings.HasPrefix(p, "charts/ampbridge/README") {
			kept = append(kept, p)
		}
	}
	if len(kept) < 20 {
		t.Fatalf("%d pages", len(kept))
	}
	return kept
}

// sources returns the repository's files with one of the extensions; no extension means
// every file.
func sources(t *testing.T, extensions ...string) []string {
	t.Helper()
	var found []string
	testkit.Must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := entry.Name(); {
		case entry.IsDir() && (name == ".git" || name == "bin" || name == "dist"):
			return fs.SkipDir
		case !entry.Type().IsRegular():
			return nil
		}
		for _, extension := range extensions {
			if filepath.Ext(path) == extension {
				found = append(found, filepath.ToSlash(strings.TrimPrefix(path, root+"/")))
			}
		}
		return nil
	}))
	return found
}

func read(t *testing.T, path string) string {
	t.Helper()
	return testkit.ReadFile(t, filepath.Join(root, path))
}

// line is one line of a page. In code it is inside a fence, whose info string is fence.
type line struct {
	number int
	text   string
	code   bool
	fence  string
}

func lines(text string) []line {
	var all []line
	inside, fence := false, ""
	for number, text := range strings.Split(text, "\n") {
		marker, isFence := strings.CutPrefix(strings.TrimSpace(text), "```")
		if isFence && !inside {
			fence = marker
		}
		all = append(all, line{number + 1, text, inside || isFence, fence})
		if isFence {
			inside = !inside
		}
		if !inside {
			fence = ""
		}
	}
	return all
}

var notInAnchors = regexp.MustCompile(`[^\p{L}\p{N} _-]`)

// anchors returns the anchors of a page's headings, as GitHub makes them.
func anchors(text string) map[string]bool {
	found := map[string]bool{}
	for _, l := range lines(text) {
		level := strings.IndexFunc(l.text, func(r rune) bool { return r != '#' })
		if l.code || level < 1 || l.text[level] != ' ' {
			continue
		}
		heading := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(l.text[level+1:], "$1")
		anchor := strings.ReplaceAll(notInAnchors.ReplaceAllString(strings.Map(unicode.ToLower, heading), ""), " ", "-")
		unique := anchor
		for n := 1; found[unique]; n++ {
			unique = anchor + "-" + strconv.Itoa(n)
		}
		found[unique] = true
	}
	return found
}

// block is a fenced block of a page.
type block struct {
	page   string
	number int
	info   string
	text   string
}

func blocks(t *testing.T, page string) []block {
	t.Helper()
	var all []block
	var open *block
	for _, l := range lines(read(t, page)) {
		info, isFence := strings.CutPrefix(strings.TrimSpace(l.text), "```")
		switch {
		case isFence && open == nil:
			open = &block{page: page, number: l.number, info: info}
		case isFence:
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += l.text + "\n"
		}
	}
	if open != nil {
		t.Errorf("%s:%d: the block has no end", page, open.number)
	}
	return all
}
